#!/bin/sh
mkdir work && cd work || exit 1
. "$(dirname "$0")/library.sh"
