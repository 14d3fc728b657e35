"""Start of htlease-ep.pyz, on an execution point; this file parses on any Python 3.

A Python that is too old for the wrapper must not cost the user a job: the payload then runs as if
the wrapper were not there.
"""

import gc
import os
import sys

OLDEST = (3, 9)
#: Called by one of these names this file is a hook (`htlease_hooks.cli.HOOKS`); HTCondor may give a
#: job's executable any other.
HOOK_LINKS = (
    "prepare_job_before_transfer",
    "prepare_job",
    "update_job_info",
    "job_exit",
    "shadow_prepare_job",
    "router_translate_job",
    "router_update_job_info",
    "router_job_finalize",
    "router_job_cleanup",
)


def run_untracked(arguments):  # type: ignore[no-untyped-def]
    """Become the payload; it exits as it would have without a wrapper."""
    from htlease_wrapper.untracked import become

    if os.path.isabs(arguments[0] if arguments else ""):  # noqa: PTH117
        return become(arguments)  # a site put us in front of a job that knows nothing of us
    version = "%d.%d" % tuple(sys.version_info[:2])  # noqa: UP031
    if arguments[:1] != ["run"] or "--" not in arguments:
        sys.stderr.write(
            "htlease: Python %s is too old (3.9 is needed) and there is no `run ... -- COMMAND` "  # noqa: UP031
            "to run without a lease; ask the site for a newer python3\n" % version
        )
        return 78
    sys.stderr.write(
        "htlease: Python %s is too old (3.9 is needed): the payload runs untracked, without a "  # noqa: UP031
        "lease; nothing of it is recorded\n" % version
    )
    sys.stderr.flush()
    return become(arguments[arguments.index("--") + 1 :])


if sys.version_info < OLDEST:
    raise SystemExit(run_untracked(sys.argv[1:]))  # type: ignore[no-untyped-call]

HANDED_OVER = "."  # ends what the prelude hands over, before the arguments
is_after_prelude = sys.argv[0] == "-c"
if is_after_prelude:
    end = sys.argv.index(HANDED_OVER)
    words, sys.argv = sys.argv[2:end], [sys.argv[1], *sys.argv[end + 1 :]]
    from htlease_wrapper.given import take_over

    take_over(words)
else:
    # An upgrade swaps a link; what is imported later has to come from the file that this began with
    sys.path[0] = os.path.realpath(sys.path[0])

HARMLESS = "PYTHON_CPU_COUNT"  # HTCondor sets it for every job
if not sys.flags.isolated and any(n.startswith("PYTHON") and n != HARMLESS for n in os.environ):
    # A job's PYTHONPATH is meant for its payload, and may shadow what the wrapper imports.
    pyz = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    if sys.executable and os.path.isfile(pyz):  # noqa: PTH113
        from htlease_wrapper.given import Entries, at_start

        argv = [sys.executable, "-I", "-S"] + sys.argv  # noqa: RUF005
        os.execve(sys.executable, argv, Entries(at_start().entries))

for descriptor in (0, 1, 2):
    try:
        os.fstat(descriptor)
    except OSError:
        # Nothing of ours may get the number of a stream that is closed. The payload finds it closed
        os.open("/", os.O_RDONLY)

gc.disable()  # nothing that the start makes is garbage
if sys.argv[1:2] == ["hook"] or os.path.basename(sys.argv[0]) in HOOK_LINKS:  # noqa: PTH119
    from htlease_hooks.cli import main
else:
    from htlease_wrapper.cli import main

gc.enable()
os._exit(main(sys.argv))  # nothing is left that would have to be torn down in order
