#!/bin/sh
# Counts the words of what came in.
set -eu
mkdir -p scratch/output
cat scratch/input/* | wc -w > scratch/output/words.txt
