#!/bin/sh
# One number for each name on the list.
set -eu
while read -r name; do
    printf '%s\n' "$name" | wc -c
done < list.txt
