#!/bin/sh
# Reports its states as an executor of the CDM Task Service does, and stands still in its first
# attempt once it has reached the state named by the argument.
set -e
for state in job_submitting job_submitted upload_submitting upload_submitted; do
    "$HTLEASE" phase enter "$state"
    if [ "$HTLEASE_ATTEMPT_NUMBER" = 1 ] && [ "$state" = "$1" ]; then
        exec sleep 300
    fi
done
echo "attempt $HTLEASE_ATTEMPT_NUMBER" > "$HTLEASE_OUTPUT_PREFIX"
"$HTLEASE" phase enter complete
