"""Programs in a machine.

Invariant: a program outlives whoever started it. A reader whose connection breaks goes on at the byte where it was; bytes
that the guest has overwritten meanwhile are counted in `lost` of the piece behind them.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

from .errors import ExecFailed, Problem, Unreachable, problem
from .transport import Transport, path
from .types import ExecInfo

#: How much longer than its program an answer may take, seconds.
ANSWER_TIME = 30.0
#: How long a program runs whose end is waited for, if nobody says, seconds; the engine ends it then.
USUAL_TIME = 60.0
#: How often a stream that brings nothing is taken up again.
MOST_BREAKS = 5


@dataclass(frozen=True)
class Output:
    """A piece of a program's output: `stdout` or `stderr`, which a terminal joins in `stdout`."""

    stream: str
    offset: int
    data: bytes
    lost: int = 0

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class Completed:
    """A program that has ended, with its output."""

    info: ExecInfo
    stdout: str
    stderr: str
    lost: int

    @property
    def code(self) -> int | None:
        """Its exit code; none if it did not exit by itself."""
        return self.info.code

    @property
    def ok(self) -> bool:
        return self.info.code == 0

    @property
    def how(self) -> str:
        """How it ended, in words."""
        words = {
            "exited": f"exited with {self.info.code}",
            "signaled": f"was ended by signal {self.info.signal}",
            "timed_out": "ran out of time",
        }
        return words.get(self.info.state, f"is {self.info.state}")


def spec(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
    timeout: float | None,
) -> dict[str, Any]:
    """A program as the engine takes it."""
    if isinstance(argv, str):
        raise TypeError('argv is a list of words, as in ["sh", "-c", "echo hello"]')
    asked: dict[str, Any] = {"argv": list(argv)}
    optional = {"env": dict(env) if env else None, "cwd": cwd, "user": user}
    asked.update({name: value for name, value in optional.items() if value is not None})
    if timeout is not None:
        asked["timeout"] = span(timeout)
    return asked


def span(seconds: float) -> str:
    """A length of time as the engine reads it."""
    return f"{max(1, round(seconds * 1000))}ms"


def run(transport: Transport, machine: str, asked: dict[str, Any], timeout: float | None, check: bool) -> Completed:
    """Runs a program to its end. A request whose answer is lost is repeated with its key, and the program is started once."""
    answer = transport.json(
        "POST",
        path("machines", machine, "execs"),
        {**asked, "wait": True},
        once=uuid.uuid4().hex,
        timeout=(USUAL_TIME if timeout is None else timeout) + ANSWER_TIME,
    )
    completed = Completed(
        ExecInfo.read(answer), answer.get("stdout") or "", answer.get("stderr") or "", answer.get("lost") or 0
    )
    if check and not completed.ok:
        raise ExecFailed(completed)
    return completed


class Exec:
    """A program that was started, and may have ended."""

    def __init__(self, transport: Transport, info: ExecInfo) -> None:
        self._transport = transport
        self._at = ("machines", info.machine, "execs", info.id)
        #: As it was last seen.
        self.info = info

    def __repr__(self) -> str:
        return f"<Exec {self.info.id} {self.info.argv[0]!r} {self.info.state}>"

    def refresh(self) -> ExecInfo:
        """Looks at it again."""
        self.info = ExecInfo.read(self._transport.json("GET", path(*self._at)))
        return self.info

    def write(self, data: bytes | str, *, close: bool = False) -> None:
        """Writes to its stdin, once it has taken what came before."""
        sent = data.encode() if isinstance(data, str) else data
        body = {"data": base64.b64encode(sent).decode(), "close": close}
        self._transport.json("POST", path(*self._at, "stdin"), body)

    def close_stdin(self) -> None:
        """Tells it that nothing more comes."""
        self._transport.json("POST", path(*self._at, "stdin"), {"close": True})

    def signal(self, number: int) -> None:
        """Sends a signal to its process group."""
        self._transport.json("POST", path(*self._at, "signal"), {"signal": number})

    def stream(self, *, offset: str = "0") -> Iterator[Output]:
        """Its output from a place on, as it comes, until it has ended; `info` says how, then."""
        last, breaks, lost = offset, 0, 0
        while True:
            try:
                for event, number, data in self._transport.follow(path(*self._at, "output"), last=last):
                    if event == "problem":
                        raise problem(int(data.get("status") or 500), data)
                    if event == "lost":
                        lost += int(data["bytes"])
                    elif event == "output":
                        last, breaks = number or last, 0
                        piece = base64.b64decode(data["data"])
                        yield Output(data["stream"], int(data["offset"]), piece, lost)
                        lost = 0
                    elif event == "end":
                        self.info = ExecInfo.read(data)
                        return
            except Problem as ended:
                if ended.code != "stopping":
                    raise
            # The stream broke off: it goes on where it was.
            breaks += 1
            lost = 0
            if breaks > MOST_BREAKS:
                raise Unreachable("the output broke off again and again, and brought nothing")

    def wait(self) -> Completed:
        """Waits for its end, and takes all of its output that the guest still has."""
        taken: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        lost = 0
        for piece in self.stream():
            taken[piece.stream].append(piece.data)
            lost += piece.lost
        text = {name: b"".join(pieces).decode(errors="replace") for name, pieces in taken.items()}
        return Completed(self.info, text["stdout"], text["stderr"], lost)
