"""Runs the archive behind the prelude: `python3 -c THIS FILE WORDS... . ARGUMENTS...`."""

import os
import sys
import zipimport

# An upgrade swaps a link; what is imported later has to come from the file that this began with.
sys.path.insert(0, os.path.realpath(sys.argv[1]))
try:
    code = zipimport.zipimporter(sys.path[0]).get_code("__main__")
except (ImportError, MemoryError, OSError) as error:
    # The prelude knows what to do without an interpreter that works.
    os.environ["HTLEASE_WITHOUT"] = repr(error)
    os.execv("/bin/sh", ["sh", sys.argv[1], *sys.argv[sys.argv.index(".") + 1 :]])
exec(code)
