"""Tells a person, once, that a transfer waits for them: by a command, a file, or a log line."""

from __future__ import annotations

import os
import subprocess

from htlease_dagman.staging.staging_file import Notice

_COMMAND_SECONDS = 60.0


def send_notice(notice: Notice, subject: str, text: str) -> str | None:
    """Tell by every way that is set up; return why one failed, or None."""
    problem = None
    if notice.file is not None:
        try:
            # One write each, so that two notices cannot mingle.
            descriptor = os.open(notice.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{subject}\n{text}\n\n")
        except OSError as error:
            problem = f"notice file {notice.file}: {error.strerror}"
    if notice.command:
        problem = _run(notice.command, subject, text) or problem
    return problem


def _run(command: tuple[str, ...], subject: str, text: str) -> str | None:
    argv = [word.replace("{subject}", subject) for word in command]
    try:
        done = subprocess.run(
            argv,
            input=text + "\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"notice command {argv[0]}: {error}"
    if done.returncode != 0:
        return (
            f"notice command {argv[0]} ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        )
    return None
