#!/bin/sh
# PRE: 4 asks DAGMan to call again later.
[ -s list.txt ] || exit 4
echo "$1: $(wc -l < list.txt) names"
