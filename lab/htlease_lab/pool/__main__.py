"""Makes `python -m htlease_lab.pool` the pool's command line."""

import sys

from .cli import main

sys.exit(main())
