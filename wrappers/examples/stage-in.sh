#!/bin/sh
# Fetches the input; here it makes some up.
set -e
echo "attempt $HTLEASE_ATTEMPT_NUMBER fetches the input"
seq 1 10 > input.txt
