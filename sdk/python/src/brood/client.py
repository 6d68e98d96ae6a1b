"""The client: one engine, one key."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Mapping

from .errors import BroodError, Problem, problem
from .exec import span
from .machine import LONG, Checkpoint, Machine, Snapshot
from .transport import Query, Transport, path
from .types import Event, Info, MachineInfo, SnapshotInfo, Template
from .usage import Usage

URL = "http://127.0.0.1:7070"


def _key() -> str:
    """The key where the command line looks for it as well."""
    if given := os.environ.get("BROOD_KEY"):
        return given.strip()
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    name = os.environ.get("BROOD_KEY_FILE") or str(Path(config) / "brood" / "key")
    try:
        return Path(name).read_text().strip()
    except OSError as error:
        raise BroodError(f"there is no key: set BROOD_KEY or BROOD_KEY_FILE, or pass key= ({error})") from error


class Client:
    """An engine by its URL, asked with a key; both are taken from `BROOD_URL`, `BROOD_KEY` or `BROOD_KEY_FILE` if not
    said. `timeout` is how long one answer may take, `patience` how long a request is repeated that can be, in seconds.
    It can be used by several threads at once, and holds nothing open.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0, patience: float = 20.0
    ) -> None:
        url = url or os.environ.get("BROOD_URL") or URL
        self._transport = Transport(url, key or _key(), timeout, patience)

    def __repr__(self) -> str:
        return f"<Client of {self._transport.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def info(self) -> Info:
        """What the engine is, and what the key allows."""
        return Info.read(self._transport.json("GET", path("info")))

    def create(
        self,
        template: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        ttl: float | None = None,
        idle: float | None = None,
        idempotency_key: str | None = None,
    ) -> Machine:
        """Makes a machine of a template, by its name or id. `ttl` and `idle` end it by themselves, in seconds."""
        asked: dict[str, Any] = {"template": template}
        if name is not None:
            asked["name"] = name
        if labels:
            asked["labels"] = dict(labels)
        if ttl is not None:
            asked["ttl"] = span(ttl)
        if idle is not None:
            asked["idle"] = span(idle)
        once = idempotency_key or uuid.uuid4().hex
        return Machine(self._transport, MachineInfo.read(self._transport.json("POST", path("machines"), asked, once=once)))

    def machine(self, id: str) -> Machine:
        """A machine by its id, which may have ended."""
        return Machine(self._transport, MachineInfo.read(self._transport.json("GET", path("machines", id))))

    def checkpoint(self, id: str) -> Checkpoint:
        """A checkpoint by its id."""
        return Checkpoint(self._transport, MachineInfo.read(self._transport.json("GET", path("checkpoints", id))))

    def machines(self, *, label: tuple[str, str] | None = None, ended: bool = False) -> Iterator[Machine]:
        """Machines that live, or have ended, oldest first."""
        for one in self._pages(path("machines"), label, ended):
            yield Machine(self._transport, MachineInfo.read(one))

    def checkpoints(self, *, label: tuple[str, str] | None = None) -> Iterator[Checkpoint]:
        """Checkpoints that are kept, oldest first."""
        for one in self._pages(path("checkpoints"), label, False):
            yield Checkpoint(self._transport, MachineInfo.read(one))

    def snapshot(self, which: str) -> Snapshot:
        """A snapshot by its name or id."""
        return Snapshot(self._transport, SnapshotInfo.read(self._transport.json("GET", path("snapshots", which))))

    def snapshots(self) -> Iterator[Snapshot]:
        """The tenant's snapshots, oldest first."""
        for one in self._pages(path("snapshots"), None, False):
            yield Snapshot(self._transport, SnapshotInfo.read(one))

    def import_snapshot(self, file: str | Path, *, name: str | None = None) -> Snapshot:
        """Takes a snapshot that was exported, here or elsewhere; it is there whole or not at all."""
        headers = {"Content-Type": "application/octet-stream"}
        with open(file, "rb") as body:
            answer = self._transport.open(
                "POST", path("snapshots", "import"), query={"name": name}, body=body, headers=headers, timeout=LONG
            )
        return Snapshot(self._transport, SnapshotInfo.read(json.loads(self._transport.read(answer))))

    def _pages(self, target: str, label: tuple[str, str] | None, ended: bool) -> Iterator[Mapping[str, Any]]:
        query: dict[str, str | int | None] = {
            "label": None if label is None else "=".join(label),
            "ended": "true" if ended else None,
        }
        while True:
            page = self._transport.json("GET", target, query=query)
            yield from page["items"]
            if not page.get("next"):
                return
            query["cursor"] = page["next"]

    def create_template(self, name: str, *, guest: str = "linux", vcpus: int = 1, memory_mib: int = 256) -> Template:
        """Makes a template; it is booted and sealed when it is first used."""
        asked = {"name": name, "guest": guest, "vcpus": vcpus, "memory_mib": memory_mib}
        return Template.read(self._transport.json("POST", path("templates"), asked))

    def templates(self) -> Iterator[Template]:
        """The tenant's templates, and public ones."""
        for one in self._pages(path("templates"), None, False):
            yield Template.read(one)

    def remove_template(self, which: str) -> None:
        """Removes a template; its machines live on."""
        self._transport.json("DELETE", path("templates", which))

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """What happened behind a number, and then what happens, without an end; it goes on by itself where the connection
        breaks. Events that are gone are passed over."""
        last = after
        while True:
            for kind, number, data in self._transport.follow(path("events"), last=str(last)):
                if kind == "problem":
                    ended = problem(int(data.get("status") or 500), data)
                    if ended.code != "stopping":
                        raise ended
                    break
                last = int(number or last)
                if kind != "gap":
                    yield Event.read(data)

    def decisions(self, intent: str) -> list[Mapping[str, Any]]:
        """What policies said about a request, by its intent."""
        said = self._transport.json("GET", path("intents", intent, "decisions"))
        return list(said["items"])

    def usage(
        self,
        period: str | None = None,
        *,
        by: str | None = None,
        tenant: str | None = None,
        project: str | None = None,
        lineage: str | None = None,
        template: str | None = None,
        machine: str | None = None,
        label: tuple[str, str] | None = None,
    ) -> Usage:
        """What was used in a month, such as `2026-11`, and what it comes to; of this month if not said. `by` sums up apart:
        `tenant`, `project`, `lineage`, `template`, `machine` or `label:KEY`. An operator may ask for another tenant's, or `*`.
        """
        query: Query = {
            "period": period,
            "by": by,
            "tenant": tenant,
            "project": project,
            "lineage": lineage,
            "template": template,
            "machine": machine,
            "label": None if label is None else "=".join(label),
        }
        return Usage.read(self._transport.json("GET", path("usage"), query=query))

    def rate(self) -> None:
        """Has usage counted and rated now that would be later; wants an operator's key."""
        self._transport.json("POST", path("usage", "ratings"))


__all__ = ["Client", "Problem"]
