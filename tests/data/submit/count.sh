#!/bin/sh
echo "$# $*"
exit 3
