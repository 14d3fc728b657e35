"""How reasons begin that mean something to those who act on them."""

from __future__ import annotations

#: How a reason begins that says that a limit on run time, whoever's, was reached.
WALL_TIME = "walltime"
