"""What callers of htlease catch.

Expected refusals by the server are values (`messages.Rejection`); they become `Refused` only on
the client's side of the wire, where a caller has to stop.
"""

from __future__ import annotations


class HTLeaseError(Exception):
    """Something in htlease went wrong; the text says what and what to do next."""


class InvalidField(HTLeaseError, ValueError):
    """A value from outside cannot be used."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BadConfig(HTLeaseError):
    """The set-up is wrong in a way that a person has to mend (exit code 78)."""


class ServerUnavailable(HTLeaseError):
    """The lease server gave no usable answer within the time allowed; try again later."""


class Refused(HTLeaseError):
    """The server understood the call and said no.

    `code` is the stable word of the wire protocol; callers act on it, never on the text.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int = 0,
        retry_after_seconds: float | None = None,
        outcome: str | None = None,
        field: str | None = None,
        flag: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.outcome = outcome
        self.field = field
        self.flag = flag
