#!/bin/sh
# Stands for real work on one node.
set -eu
echo "node $1, attempt ${HTLEASE_ATTEMPT_NUMBER:-without a lease}"
sleep 2
