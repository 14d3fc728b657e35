#!/bin/sh
# Publishes the result under a name that no other attempt uses.
set -e
echo "attempt $HTLEASE_ATTEMPT_NUMBER publishes $(cat result.txt)"
cp result.txt "$HTLEASE_OUTPUT_PREFIX-result.txt"
