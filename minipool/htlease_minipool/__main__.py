"""Makes `python -m htlease_minipool` the pool's command line."""

import sys

from .cli import main

sys.exit(main())
