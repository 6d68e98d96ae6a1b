"""What can go wrong, as exceptions.

Invariant: a `Problem` is what the engine said, whole: its code never changes its meaning, and cause and remedy are the
engine's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping

if TYPE_CHECKING:
    from .exec import Completed


class BroodError(Exception):
    """Anything that this package raises."""


class Unreachable(BroodError):
    """There is no answer, so that nobody knows whether what was asked was done.

    Where that matters the request had an idempotency key, and was repeated with it until the client's patience ended.
    """


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a request."""

    pointer: str
    detail: str
    nearest: str | None


class Problem(BroodError):
    """The engine refuses (RFC 9457)."""

    def __init__(self, status: int, said: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(said.get("code", "unknown"))
        self.title = str(said.get("title", f"the server answered {status}"))
        self.detail = str(said.get("detail", self.title))
        self.cause = str(said.get("cause", ""))
        self.remediation = str(said.get("remediation", ""))
        self.retryable = bool(said.get("retryable", False))
        wait = said.get("retry_after_ms")
        self.retry_after: float | None = None if wait is None else float(wait) / 1000
        self.request_id: str | None = said.get("request_id")
        self.errors = [
            Mistake(str(one.get("pointer", "")), str(one.get("detail", "")), one.get("nearest"))
            for one in said.get("errors", [])
        ]
        super().__init__(f"{self.code}: {self.detail}" + (f" {self.remediation}" if self.remediation else ""))


class NotFound(Problem):
    """There is none of this tenant's."""


class Ended(Problem):
    """It was there, and has ended."""


class Unauthorized(Problem):
    """The key is missing, not valid, or does not allow it."""


class Denied(Problem):
    """A policy says no, in its own words."""

    def __init__(self, status: int, said: Mapping[str, Any]) -> None:
        super().__init__(status, said)
        denial = said.get("denial") or {}
        self.binding = str(denial.get("binding", ""))
        self.denial_code = str(denial.get("code", ""))
        self.message = str(denial.get("message", self.detail))


class ExecFailed(BroodError):
    """A program that was to succeed did not."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        end = completed.stderr.strip().splitlines()
        words = f": {end[-1]}" if end else ""
        super().__init__(f"{completed.info.argv[0]} {completed.how}{words}")


_KINDS: dict[str, type[Problem]] = {
    "not_found": NotFound,
    "ended": Ended,
    "denied": Denied,
    "missing_key": Unauthorized,
    "bad_key": Unauthorized,
    "missing_scope": Unauthorized,
}


def problem(status: int, said: Mapping[str, Any]) -> Problem:
    """The exception that a problem is."""
    return _KINDS.get(str(said.get("code")), Problem)(status, said)
