"""Which hook is being called: by the name of the link to htlease-ep.pyz, or as `hook NAME`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

#: Name of a hook's link -> the module whose `main(arguments)` returns the exit status.
HOOKS = {
    "prepare_job_before_transfer": "htlease_hooks.starter.prepare",
    "prepare_job": "htlease_hooks.starter.prepare",
    "update_job_info": "htlease_hooks.starter.update",
    "job_exit": "htlease_hooks.starter.job_exit",
    "shadow_prepare_job": "htlease_hooks.shadow.shadow_prepare",
    "router_translate_job": "htlease_hooks.router.router_hooks",
    "router_update_job_info": "htlease_hooks.router.router_hooks",
    "router_job_finalize": "htlease_hooks.router.router_hooks",
    "router_job_cleanup": "htlease_hooks.router.router_hooks",
}


def main(argv: Sequence[str]) -> int:
    """Run a hook and return its exit status; `argv[0]` is the link, or `argv[1:3]` names it."""
    name, arguments = Path(argv[0]).name, argv[1:]
    if name not in HOOKS:
        from htlease.execution.process_start import at_start
        from htlease_wrapper import cli, wrapped_job

        if wrapped_job.started_as_job(argv, at_start().environ()) is not None:
            return cli.main(argv)  # a payload whose first argument is `hook`
        name, arguments = (argv[2] if len(argv) > 2 else ""), argv[3:]
    module = HOOKS.get(name)
    if module is None:
        sys.stderr.write(f"htlease: there is no hook {name!r}; there are {', '.join(HOOKS)}\n")
        return 78
    status: int = importlib.import_module(module).main(name, arguments)
    return status
