"""Which subjob a job works on, where its ad has no more than the access point's stamp.

A job that brought a token for another workflow, or was given a key on its wrapper's command line,
is known to the server by its ID from its first call on.
"""

from __future__ import annotations

from htlease.client.client import LeaseServer
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey


def own_key(server: LeaseServer, stamp: SubjobKey, global_job_id: str) -> SubjobKey:
    """Return the key that a job chose itself, or else the stamp; raises Refused.

    What was begun under the stamp, before the job's own token was there, is cancelled.
    """
    known = {
        SubjobKey(one["workflow"], one["subjob"]): one
        for one in server.find(global_job_id)["subjobs"]
    }
    others = [key for key in known if key != stamp]
    if len(others) != 1:
        return stamp
    if stamp in known and known[stamp]["status"] in ("waiting", "abandoned"):
        server.command(stamp, m.Cancel(f"its job went on under {others[0]}"))
    return others[0]
