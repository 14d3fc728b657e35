"""Which start of a job a `NumJobStarts` means: the one place that knows how far each reader is off.

A module of its own, since DAG scripts, whose start shall cost little, need nothing else of it.
"""

from __future__ import annotations

import enum


class ReadFrom(enum.Enum):
    """Where a `NumJobStarts` was read."""

    #: `.job.ad` of a starter, starter hooks, `$$([NumJobStarts])`, a DAG script's job ad.
    JOB_AD = "job-ad"
    #: condor_chirp, which answers from the shadow's memory.
    CHIRP = "chirp"
    #: The queue or history once the start is over, as a POST script or condor_history sees it.
    AFTER_THE_END = "after-the-end"


#: How many starts each reader is short of, this start included.
_NOT_YET_COUNTED = {ReadFrom.JOB_AD: 1, ReadFrom.CHIRP: 0, ReadFrom.AFTER_THE_END: 0}


def start_number(num_job_starts: int, read_from: ReadFrom) -> int:
    """Return which start this is (1 = first) for a `NumJobStarts` read in a given place.

    The snapshot in `.job.ad` is written before the start is counted, the shadow's memory after.
    Source: measured on 23.9.6 and 25.14.1; `BaseShadow::resourceBeganExecution`.
    """
    return num_job_starts + _NOT_YET_COUNTED[read_from]
