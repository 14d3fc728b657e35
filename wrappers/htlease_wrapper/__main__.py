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
    from htlease_wrapper.exec_payload import exec_payload

    if os.path.isabs(arguments[0] if arguments else ""):  # noqa: PTH117
        return exec_payload(arguments)  # a site put us in front of a job that knows nothing of us
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
    return exec_payload(arguments[arguments.index("--") + 1 :])


if sys.version_info < OLDEST:
    raise SystemExit(run_untracked(sys.argv[1:]))  # type: ignore[no-untyped-call]

HARMLESS = "PYTHON_CPU_COUNT"  # HTCondor sets it for every job
#: What the prelude hands over; None where Python was called with this file.
words = None
if sys.argv[0] == "-c":
    end = sys.argv.index(".")
    words, sys.argv = sys.argv[2:end], [sys.argv[1], *sys.argv[end + 1 :]]


def isolate():  # type: ignore[no-untyped-def]
    """Start again apart from the Python settings of the job, which may shadow what is imported."""
    pyz = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    is_affected = any(n.startswith("PYTHON") and n != HARMLESS for n in os.environ)
    if is_affected and not sys.flags.isolated and sys.executable and os.path.isfile(pyz):  # noqa: PTH113
        from htlease.execution.process_start import Entries, at_start

        argv = [sys.executable, "-I", "-S"] + sys.argv  # noqa: RUF005
        os.execve(sys.executable, argv, Entries(at_start().entries))


def occupy_closed_streams():  # type: ignore[no-untyped-def]
    """Let no file of ours get the number of a closed stream; the payload finds it closed."""
    own = os.stat(sys.argv[0])  # noqa: PTH116
    for descriptor in (0, 1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), own):
                os.set_inheritable(descriptor, False)  # bash reads its script from there
        except OSError:
            os.open("/", os.O_RDONLY)


def loaded():  # type: ignore[no-untyped-def]
    """Return what is to be called, with all that it needs to run a job."""
    if sys.argv[1:2] == ["hook"] or os.path.basename(sys.argv[0]) in HOOK_LINKS:  # noqa: PTH119
        from htlease_hooks.cli import main
    else:
        from htlease_wrapper.cli import load, main

        load(sys.argv[1:])
    return main


gc.disable()  # nothing that the start makes is garbage
try:
    if words is None:
        # An upgrade swaps a link; what is imported later has to come from the file of this start.
        sys.path[0] = os.path.realpath(sys.path[0])
        isolate()  # type: ignore[no-untyped-call]
    else:
        from htlease.execution.process_start import take_over

        take_over(words)
    occupy_closed_streams()  # type: ignore[no-untyped-call]
    main = loaded()  # type: ignore[no-untyped-call]
except (ImportError, MemoryError, OSError) as error:
    if words is None:
        raise
    # The prelude knows what to do without an interpreter that works.
    os.environ["HTLEASE_WITHOUT"] = repr(error)
    os.execv("/bin/sh", ["sh"] + sys.argv)  # noqa: RUF005

gc.enable()
os._exit(main(sys.argv))  # nothing is left that would have to be torn down in order
