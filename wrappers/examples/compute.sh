#!/bin/sh
# Adds up the first $1 numbers of the input, two seconds each, and saves after each where it is.
set -e
step=0
sum=0
if [ -e "$HTLEASE_DETAILS" ]; then
    read -r step sum < "$HTLEASE_DETAILS"
fi
echo "attempt $HTLEASE_ATTEMPT_NUMBER computes from step $step"
while [ "$step" -lt "$1" ]; do
    sleep 2
    step=$((step + 1))
    sum=$((sum + $(sed -n "${step}p" input.txt)))
    echo "$step $sum" > "$HTLEASE_DETAILS.new"
    mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
done
echo "$sum" > result.txt
