#!/bin/sh
set -eu
total=0
while read -r number; do
    total=$((total + number))
done < numbers.txt
echo "$total"
