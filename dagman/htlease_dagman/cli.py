"""`htlease-dag pre|post|hold SETTINGS NAME VALUE...`: what DAGMan calls on the access point.

The words are those of `invocation.words_for`. The exit status is DAGMan's business: 0, a failure,
or `invocation.DEFER` and `invocation.SKIP`, which the generated include file tells DAGMan about.
"""

from __future__ import annotations

import os
import sys

from htlease.errors import BadConfig, HTLeaseError, ServerUnavailable
from htlease_dagman.scripts.dag_settings import CLEAN_UP, Settings, read_settings
from htlease_dagman.scripts.invocation import DEFER, Call, read_call
from htlease_dagman.scripts.node_record import Busy, NodeRecord
from htlease_dagman.scripts.node_script import RetryLater, Script, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one script and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["watch"]:
        from htlease_dagman.staging.watch_command import main as watch

        return watch(words[1:])
    if len(words) < 2:
        print(__doc__.partition("\n")[0], file=sys.stderr)
        return FAILED
    kind, settings_file, *rest = words
    try:
        settings = read_settings(settings_file)
        call = read_call(kind, rest, os.environ)
        return _run(settings, call)
    except HTLeaseError as error:
        _say(kind, f"{error}")
    except OSError as error:
        _say(kind, f"{error.filename}: {error.strerror}")
    return FAILED


def _run(settings: Settings, call: Call) -> int:
    os.makedirs(settings.state_directory, 0o700, exist_ok=True)
    act: Callable[[Script], int]
    if len(call.files) > 1:
        # DAGMan makes one of them, and the scripts of the last are those of every node.
        raise BadConfig(
            f"{' and '.join(call.files)} were submitted together, and what DAGMan makes of them is "
            "not what was instrumented; submit each alone"
        )
    if not settings.is_subjob(call.node):
        return 0
    if call.kind == "hold":
        from htlease_dagman.scripts.hold import hold

        return hold(settings, call)
    if settings.scripts(call.node).kind == CLEAN_UP:
        from htlease_dagman.scripts import clean_up

        act = clean_up.pre if call.kind == "pre" else clean_up.post
    elif call.kind == "pre":
        from htlease_dagman.scripts.pre import pre as act
    elif settings.scripts(call.node).kind == "final":
        from htlease_dagman.scripts.final import post as act
    else:
        from htlease_dagman.scripts.post import post as act
    call.is_once = settings.scripts(call.node).kind == CLEAN_UP
    path = os.path.join(settings.state_directory, call.kind, call.node)
    try:
        record = NodeRecord(path, call.try_id)
    except Busy:
        _say(f"{call.kind} {call.node}", "another one is at work; looked at again later")
        return DEFER
    with record:
        done = record.script_state.exit
        if done is not None and not _asks_again(settings, call):
            _say(f"{call.kind} {call.node}", f"was done before, with exit status {done}")
            return done
        script = Script(settings, call, record, Server(settings))
        try:
            status = act(script)
        except RetryLater as later:
            return _put_off(script, record, str(later), later.is_counted)
        except ServerUnavailable as error:
            return _put_off(script, record, f"no answer from the lease server: {error}", True)
        except HTLeaseError as error:
            script.say(f"{error}")
            return FAILED
        record.save(exit=status)
        return status


def _asks_again(settings: Settings, call: Call) -> bool:
    """Tell whether what a script came to in this try may have been overtaken by the node's end."""
    return call.is_once or (call.kind == "pre" and settings.needs_submission)


def _put_off(script: Script, record: NodeRecord, why: str, is_counted: bool) -> int:
    script_state, most = record.script_state, script.settings.deferrals_max
    if not is_counted:
        script.say(f"later: {why}")
        return DEFER
    if script_state.deferrals >= most:
        script.say(
            f"gives up after {script_state.deferrals} times: {why}. The node fails and nothing is"
            " lost: mend this and submit the DAG again, which goes on from there"
        )
        return FAILED
    record.save(deferrals=script_state.deferrals + 1)
    script.say(f"later ({script_state.deferrals + 1} of at most {most}): {why}")
    return DEFER


def _say(who: str, text: str) -> None:
    print(f"htlease {who}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
