#!/bin/sh
# Makes .venv with everything that building, testing and the demo need. Runs from the Makefile.
# On a bare Debian-like machine, as root, it first installs the venv module that Debian splits off.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "htlease needs Python 3.10 or later here; $python is $("$python" -V 2>&1)." >&2
    echo "Name another with PYTHON=/path/to/python3. (Execution points need only 3.9.)" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$python has no venv module; install it (Debian: apt install python3-venv)." >&2
        exit 1
    fi
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends python3-venv ca-certificates >/dev/null
fi
echo "making .venv in $PWD, which takes about a minute"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --editable '.[ap,condor,globus,agent,server,postgres,scitokens,docs,test]'
