#!/bin/sh
# POST: the job's own failure, or 2, which no retry would mend, when there is no number.
[ "$2" -eq 0 ] || exit "$2"
grep -qx '[0-9][0-9]*' sum.txt || exit 2
echo "$1: $(cat sum.txt)"
