"""Requests and answers over HTTP, with the standard library.

Invariant: a request is repeated by itself only if doing it twice is doing it once: it looks, or it has an idempotency key,
or the engine said that it did not begin. A connection is of one request, so that none is shared between threads.
"""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import IO, Any, BinaryIO, Iterator, Mapping
from urllib.parse import quote, urlencode, urlsplit

from .errors import BroodError, Problem, Unreachable, problem

#: Refusals of requests that were not begun.
NOT_BEGUN = frozenset({"rate_limited", "stopping"})
#: The first attempt may still be at work: its answer comes to whoever repeats it with its key.
AT_WORK = "request_in_flight"
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0
#: Longest problem that is read, bytes.
MOST_WORDS = 1 << 20
#: Bytes that are read at once of an answer of any length.
PIECE = 1 << 18

Query = Mapping[str, "str | int | None"]


def path(*segments: object) -> str:
    """A path below `/v1`, each segment of it quoted."""
    return "/v1/" + "/".join(quote(str(segment), safe="") for segment in segments)


class Transport:
    """Where the engine is, and the key."""

    def __init__(self, url: str, key: str, timeout: float, patience: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BroodError(f"{url!r} is no address: write it like http://127.0.0.1:7070")
        self._connect: type[HTTPConnection] = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._base = parts.path.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._patience = patience
        self.url = url

    def open(
        self,
        method: str,
        target: str,
        *,
        query: Query | None = None,
        body: bytes | BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        once: str | None = None,
        timeout: float | None = None,
    ) -> HTTPResponse:
        """Sends a request, and again where that is safe; the answer, unread. Raises what the engine refuses with."""
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        target = self._base + target + ("?" + urlencode(given) if given else "")
        sent = {"Accept": "application/json", "Authorization": f"Bearer {self._key}", **(headers or {})}
        if once is not None:
            sent["Idempotency-Key"] = once
        safe = method == "GET" or once is not None
        deadline = time.monotonic() + self._patience
        wait = FIRST_WAIT
        while True:
            try:
                return self._once(method, target, body, sent, timeout)
            except Unreachable:
                if not safe or time.monotonic() + wait > deadline:
                    raise
                pause = wait
            except Problem as refused:
                again = refused.code in NOT_BEGUN or (once is not None and refused.code == AT_WORK)
                pause = max(refused.retry_after or 0.0, wait)
                if not again or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            wait = min(wait * 2, LONGEST_WAIT)

    def _once(
        self, method: str, target: str, body: bytes | BinaryIO | None, headers: Mapping[str, str], timeout: float | None
    ) -> HTTPResponse:
        connection = self._connect(self._host, self._port, timeout=timeout or self._timeout)
        try:
            connection.request(method, target, body=body, headers={**headers, "Connection": "close"})
            answer = connection.getresponse()
            if answer.status < 300:
                # It keeps the socket; the connection is closed with it.
                return answer
            said = answer.read(MOST_WORDS)
        except (OSError, HTTPException) as error:
            connection.close()
            raise Unreachable(f"{self.url} cannot be reached: {error}") from error
        connection.close()
        try:
            words = json.loads(said)
        except ValueError:
            words = None
        raise problem(answer.status, words if isinstance(words, dict) else {})

    def json(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        once: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """The answer's JSON; none where there is nothing."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        answer = self.open(method, target, query=query, body=sent, headers=headers, once=once, timeout=timeout)
        said = self.read(answer)
        return json.loads(said) if said else None

    def read(self, answer: HTTPResponse) -> bytes:
        """An answer to its end."""
        try:
            with answer:
                return answer.read()
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self.url} broke off its answer: {error}") from error

    def copy(self, answer: HTTPResponse, to: IO[bytes]) -> int:
        """An answer to its end, a piece at a time; its length."""
        length = 0
        try:
            with answer:
                while piece := answer.read(PIECE):
                    length += to.write(piece)
        except HTTPException as error:
            raise Unreachable(f"{self.url} broke off its answer: {error}") from error
        to.flush()
        return length

    def follow(
        self, target: str, *, last: str | None = None, query: Query | None = None
    ) -> Iterator[tuple[str, str | None, Any]]:
        """A stream's frames: event, id, data. It ends with the stream, however that ends."""
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        with self.open("GET", target, query=query, headers=headers) as answer:
            yield from frames(iter(answer.readline, b""))


def frames(lines: Iterator[bytes]) -> Iterator[tuple[str, str | None, Any]]:
    """Frames of `text/event-stream` (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    event, number, data = "message", None, list[str]()
    while True:
        try:
            line = next(lines, b"")
        except (OSError, HTTPException):
            return
        if not line.endswith(b"\n"):
            return
        text = line.decode().rstrip("\r\n")
        name, _, value = text.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if not text:
            if data:
                yield event, number, json.loads("\n".join(data))
            event, number, data = "message", None, []
        elif name == "event":
            event = value
        elif name == "id":
            number = value
        elif name == "data":
            data.append(value)
