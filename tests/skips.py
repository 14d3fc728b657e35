"""Counts what a test run skipped, prints it with reasons, and fails above a stated number.

A check that is skipped everywhere is a check that cannot fail. `--skips-at-most N` states how many
skips are known; one more fails the run, whatever else passed.
"""

from __future__ import annotations

from collections import Counter

import pytest

_OPTION = "--skips-at-most"


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        _OPTION, type=int, default=None, metavar="N", help="fail when more tests are skipped"
    )


def judge(session: pytest.Session) -> None:
    """Fail a run that passed but skipped more than it may; for the end of a session."""
    most = session.config.getoption(_OPTION)
    if most is None or hasattr(session.config, "workerinput"):
        return
    if session.exitstatus == pytest.ExitCode.OK and len(_reasons(session.config)) > most:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def tell(config: pytest.Config) -> None:
    """Print the number of skips beside the number allowed, and how often each reason was given."""
    most = config.getoption(_OPTION)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if most is None or reporter is None:
        return
    reasons = _reasons(config)
    reporter.write_line(
        f"skipped: {len(reasons)}, at most {most} allowed", red=len(reasons) > most, bold=True
    )
    for reason, count in Counter(reasons).most_common():
        reporter.write_line(f"  {count} x {reason}")


def _reasons(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [] if reporter is None else reporter.stats.get("skipped", [])
    return [
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in reports
    ]
