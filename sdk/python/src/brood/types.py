"""What the engine answers, as plain values.

Invariant: fields that a newer engine adds are passed over; one that is missing is an error where it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Mapping

from .errors import Problem, problem


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


def _maybe_time(text: Any) -> datetime | None:
    return None if text is None else _time(text)


@dataclass(frozen=True)
class Info:
    """The engine, and what the key allows."""

    version: str
    tenant: str
    project: str
    scopes: tuple[str, ...]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Info:
        return cls(said["version"], said["tenant"], said["project"], tuple(said["scopes"]))


@dataclass(frozen=True)
class Template:
    """What machines are made of."""

    id: str
    name: str
    guest: str
    vcpus: int
    memory_mib: int
    visibility: str
    own: bool

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Template:
        return cls(
            said["id"],
            said["name"],
            said["guest"],
            said["vcpus"],
            said["memory_mib"],
            said["visibility"],
            said["own"],
        )


@dataclass(frozen=True)
class MachineInfo:
    """A machine or a checkpoint, as it was when it was looked at."""

    id: str
    kind: str
    name: str | None
    project: str
    state: str
    mother: str | None
    lineage: str
    template: str
    generation: int
    vcpu_milli: int
    memory_mib: int
    labels: Mapping[str, str]
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    ending: str | None

    @property
    def is_alive(self) -> bool:
        return self.state != "ended"

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> MachineInfo:
        return cls(
            id=said["id"],
            kind=said["kind"],
            name=said.get("name"),
            project=said["project"],
            state=said["state"],
            mother=said.get("mother"),
            lineage=said["lineage"],
            template=said["template"],
            generation=said["generation"],
            vcpu_milli=said["vcpu_milli"],
            memory_mib=said["memory_mib"],
            labels=dict(said["labels"]),
            created_at=_time(said["created_at"]),
            expires_at=_maybe_time(said.get("expires_at")),
            ended_at=_maybe_time(said.get("ended_at")),
            ending=said.get("ending"),
        )


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot, as it was when it was looked at. `bytes` is what it takes on disk if nothing of it is shared;
    `hibernates` the machine that sleeps in it."""

    id: str
    name: str | None
    machine: str
    hibernates: str | None
    template: str
    lineage: str
    generation: int
    guest: str
    vcpu_milli: int
    memory_mib: int
    labels: Mapping[str, str]
    bytes: int
    created_at: datetime

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> SnapshotInfo:
        return cls(
            id=said["id"],
            name=said.get("name"),
            machine=said["machine"],
            hibernates=said.get("hibernates"),
            template=said["template"],
            lineage=said["lineage"],
            generation=said["generation"],
            guest=said["guest"],
            vcpu_milli=said["vcpu_milli"],
            memory_mib=said["memory_mib"],
            labels=dict(said["labels"]),
            bytes=said["bytes"],
            created_at=_time(said["created_at"]),
        )


@dataclass(frozen=True)
class Stats:
    """What a machine costs its host: memory that is hers alone, and that with her part of what she shares."""

    private_kib: int
    pss_kib: int

    @property
    def shared_kib(self) -> int:
        return max(0, self.pss_kib - self.private_kib)


@dataclass(frozen=True)
class Tree:
    """A whole lineage, mothers before daughters, ended ones as well."""

    lineage: str
    nodes: tuple[MachineInfo, ...]

    def daughters(self, mother: str | None) -> list[MachineInfo]:
        """Those of one mother; of none, those who begin the lineage."""
        return [node for node in self.nodes if node.mother == mother]

    def __str__(self) -> str:
        lines: list[str] = []

        def draw(node: MachineInfo, depth: int) -> None:
            name = node.name or node.id[-8:]
            lines.append(f"{'  ' * depth}{name} {node.kind if node.kind != 'machine' else node.state}")
            for daughter in self.daughters(node.id):
                draw(daughter, depth + 1)

        for first in self.daughters(None):
            draw(first, 0)
        return "\n".join(lines)


@dataclass(frozen=True)
class Timing:
    """Where the time of a fork went, microseconds."""

    decided_us: float
    forked_us: float
    mother_pause_us: float | None


@dataclass(frozen=True)
class Daughter:
    """How a daughter came to be, microseconds from the fork call."""

    hostname: str | None
    first_instruction_us: float | None
    confirmed_us: float | None


@dataclass(frozen=True)
class Missing:
    """A daughter who was asked for and is not there."""

    problem: Problem

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Missing:
        return cls(problem(int(said.get("status") or 500), said))


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    number: int
    kind: str
    subject: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Event:
        return cls(said["number"], said["kind"], said["subject"], _time(said["at"]), said["data"])


@dataclass(frozen=True)
class ExecInfo:
    """A program, as it was when it was looked at: `running`, `exited`, `signaled`, `timed_out` or `lost`."""

    id: int
    machine: str
    argv: tuple[str, ...]
    state: str
    code: int | None
    signal: int | None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> ExecInfo:
        return cls(said["id"], said["machine"], tuple(said["argv"]), said["state"], said.get("code"), said.get("signal"))


@dataclass(frozen=True)
class FileStat:
    """What is known of a path in a guest; a symbolic link is not followed."""

    kind: str
    mode: int
    size: int
    uid: int
    gid: int
    modified_at: datetime
    link: str | None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> FileStat:
        return cls(
            said["kind"],
            said["mode"],
            said["size"],
            said["uid"],
            said["gid"],
            _time(said["modified_at"]),
            said.get("link"),
        )


@dataclass(frozen=True)
class DirEntry:
    """An entry of a directory in a guest: `regular`, `directory`, `symlink` or `other`."""

    name: str
    kind: str
