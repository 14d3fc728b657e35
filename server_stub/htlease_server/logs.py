"""The server's log: one line for each event, as text or as JSON.

A line has time, level and event, then the fields that apply: `subjob`, `request_id`, `attempt_id`,
`fence`, `actor`, `code`, `duration_seconds`. Fields are named one by one where a line is written,
so that no header, body, token or nonce gets here.

| level | events |
| --- | --- |
| error | the store takes no writes; a mistake of the server's own, with its traceback |
| warning | the store takes writes again, a commit was slow, a certificate is not used |
| info | start and stop, administrative acts, attempts that were refused as superseded |
| debug | each command for a subjob |
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from pathlib import Path

import msgspec

from htlease.errors import BadConfig

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_log = logging.getLogger("htlease_server")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def note(level: int, event: str, *, trace: bool = False, **fields: object) -> None:
    """Write one event; fields that are None are left out. `trace` adds the exception at hand."""
    if _log.isEnabledFor(level):
        present = {name: value for name, value in fields.items() if value is not None}
        _log.log(level, event, exc_info=trace, extra={"fields": present})


def is_noted(level: int) -> bool:
    """Tell whether events of a level are written, to save the making of one that is not."""
    return _log.isEnabledFor(level)


def configure(style: str, level: str, file: Path | None) -> None:
    """Send the log of this process to a file, or to stderr; raises BadConfig.

    A file that was moved away is made anew, as logrotate expects.
    """
    try:
        handler: logging.Handler = (
            logging.StreamHandler(sys.stderr)
            if file is None
            else logging.handlers.WatchedFileHandler(file, encoding="utf-8")
        )
    except OSError as problem:
        raise BadConfig(
            f"log file {file} cannot be written: {problem.strerror}; name another with --log-file"
        ) from problem
    handler.setFormatter(_AsJson() if style == "json" else _AsText())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(level.upper())


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.name != _log.name:
            line["logger"] = record.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class _AsText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_text(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _text(value: object) -> str:
    """Return a value as one word, quoted where it has blanks or could end the line."""
    plain = str(value)
    return plain if plain.isprintable() and " " not in plain and plain else repr(plain)
