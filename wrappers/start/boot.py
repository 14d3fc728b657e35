"""Runs the archive behind the prelude: `python3 -c THIS FILE WORDS... . ARGUMENTS...`."""

import os
import sys
import zipimport

# An upgrade swaps a link; what is imported later has to come from the file that this began with.
sys.path.insert(0, os.path.realpath(sys.argv[1]))
exec(zipimport.zipimporter(sys.path[0]).get_code("__main__"))
