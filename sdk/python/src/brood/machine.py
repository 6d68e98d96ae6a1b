"""Machines, checkpoints, snapshots, and what a fork brings.

Invariant: as a context manager each ends what it stands for, once, and what has ended already is no error then.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Mapping, Sequence, TypeVar

from .errors import Ended, NotFound
from .exec import Completed, Exec, Output, run, span, spec
from .files import Files
from .transport import Transport, path
from .types import Daughter, ExecInfo, MachineInfo, Missing, SnapshotInfo, Stats, Timing, Tree

#: How long memory may take to disk and back, seconds.
LONG = 600.0

Self = TypeVar("Self", bound="_Forkable")


class _Forkable:
    """What can be forked."""

    _plural = "machines"

    def __init__(self, transport: Transport, id: str) -> None:
        self._transport = transport
        self.id = id

    def _path(self, *rest: object) -> str:
        return path(self._plural, self.id, *rest)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
        except (Ended, NotFound):
            pass

    def fork(
        self,
        count: int = 1,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: float | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        min_count: int | None = None,
        idempotency_key: str | None = None,
    ) -> Brood:
        """Forks it into daughters from one moment, in one request; it goes on.

        `env` and `files` are theirs before their workload runs. Where not all of them come, those who did are in the answer
        and `missing` says why; fewer than `min_count` (all, if not said) are refused before anything is done.
        """
        asked: dict[str, Any] = {"count": count}
        if min_count is not None:
            asked["min_count"] = min_count
        if labels:
            asked["labels"] = dict(labels)
        if ttl is not None:
            asked["ttl"] = span(ttl)
        if env:
            asked["env"] = dict(env)
        if files:
            asked["files"] = [{"path": name, "text": text} for name, text in files.items()]
        once = idempotency_key or uuid.uuid4().hex
        return Brood(self._transport, self._transport.json("POST", self._path("forks"), asked, once=once))

    def kill(self) -> None:
        """Ends it; its daughters live on."""
        self._transport.json("DELETE", self._path())


class _Living(_Forkable):
    """What is in memory, or has been."""

    def __init__(self, transport: Transport, info: MachineInfo) -> None:
        super().__init__(transport, info.id)
        #: As it was last seen.
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.name or self.id} {self.info.state}>"

    def refresh(self) -> MachineInfo:
        """Looks at it again."""
        self.info = MachineInfo.read(self._transport.json("GET", self._path()))
        return self.info

    def snapshot(
        self,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Snapshot:
        """Takes a snapshot of it, on disk; it goes on. Labels are its own if none are said."""
        asked: dict[str, Any] = {}
        if name is not None:
            asked["name"] = name
        if labels:
            asked["labels"] = dict(labels)
        once = idempotency_key or uuid.uuid4().hex
        said = self._transport.json("POST", self._path("snapshots"), asked, once=once, timeout=LONG)
        return Snapshot(self._transport, SnapshotInfo.read(said))


class Checkpoint(_Living):
    """A frozen point of a machine, to be forked at any time: daughters of the past."""

    _plural = "checkpoints"


class Snapshot(_Forkable):
    """A machine on disk, to be forked at any time, by another engine as well. As a context manager it is removed."""

    _plural = "snapshots"

    def __init__(self, transport: Transport, info: SnapshotInfo) -> None:
        super().__init__(transport, info.id)
        #: As it was last seen.
        self.info = info

    def __repr__(self) -> str:
        return f"<Snapshot {self.info.name or self.id}>"

    def refresh(self) -> SnapshotInfo:
        """Looks at it again."""
        self.info = SnapshotInfo.read(self._transport.json("GET", self._path()))
        return self.info

    def export(self, file: str | Path) -> int:
        """Writes it to a file, which is there whole or as it was; its length. It holds the machine's memory, with whatever
        secrets are in it, so the file is its owner's alone."""
        target = Path(file)
        with tempfile.NamedTemporaryFile(dir=target.absolute().parent, delete=False) as part:
            try:
                answer = self._transport.open("GET", self._path("export"), timeout=LONG)
                length = self._transport.copy(answer, part)
                os.replace(part.name, target)
            except BaseException:
                os.unlink(part.name)
                raise
        return length

    def remove(self) -> None:
        """Removes it; machines that were made of it live on."""
        self.kill()


class Machine(_Living):
    """A machine."""

    def __init__(self, transport: Transport, info: MachineInfo, birth: Daughter | None = None) -> None:
        super().__init__(transport, info)
        #: How she came to be, if she is one of a fork that was just done.
        self.birth = birth
        self.files = Files(transport, info.id)

    def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Completed:
        """Runs a program to its end, a minute if no other `timeout` (seconds) is said. With `check`, raises `ExecFailed`
        unless it exits with 0."""
        return run(self._transport, self.id, spec(argv, env, cwd, user, timeout), timeout, check)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: bool = False,
    ) -> Exec:
        """Starts a program, which runs on whoever waits for it."""
        asked = {**spec(argv, env, cwd, user, timeout), "wait": False, "stdin": stdin}
        return Exec(self._transport, ExecInfo.read(self._transport.json("POST", self._path("execs"), asked)))

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Output]:
        """Starts a program, and brings its output as it comes, to its end."""
        return self.start(argv, env=env, cwd=cwd, user=user, timeout=timeout).stream()

    def execs(self) -> list[Exec]:
        """Its programs, ended ones and those of her mother that she has included."""
        said = self._transport.json("GET", self._path("execs"))
        return [Exec(self._transport, ExecInfo.read(one)) for one in said["items"]]

    def tree(self) -> Tree:
        """The whole lineage that it is of."""
        said = self._transport.json("GET", self._path("tree"))
        return Tree(said["lineage"], tuple(MachineInfo.read(node) for node in said["nodes"]))

    def checkpoint(self, *, idempotency_key: str | None = None) -> Checkpoint:
        """Keeps a frozen point of it; it runs on."""
        once = idempotency_key or uuid.uuid4().hex
        said = self._transport.json("POST", self._path("checkpoints"), once=once)
        return Checkpoint(self._transport, MachineInfo.read(said))

    def stats(self) -> Stats:
        """What it costs its host at this moment."""
        said = self._transport.json("GET", self._path("stats"))
        return Stats(said["private_kib"], said["pss_kib"])

    def pause(self) -> None:
        """Has its vCPUs stand still."""
        self.info = MachineInfo.read(self._transport.json("POST", self._path("pause")))

    def resume(self) -> None:
        """Has them run on."""
        self.info = MachineInfo.read(self._transport.json("POST", self._path("resume")))

    def hibernate(self) -> None:
        """Has it sleep on disk, under its own id; nothing of it is in memory."""
        self.info = MachineInfo.read(self._transport.json("POST", self._path("hibernate"), timeout=LONG))

    def wake(self) -> None:
        """Has it go on where it was."""
        self.info = MachineInfo.read(self._transport.json("POST", self._path("wake"), timeout=LONG))

    def kill(self, *, cascade: bool = False) -> None:
        """Ends it, and with `cascade` all its descendants."""
        self._transport.json("DELETE", self._path(), query={"cascade": "true" if cascade else None})


class Brood(Sequence[Machine]):
    """The daughters of one fork, in order. As a context manager it ends them."""

    def __init__(self, transport: Transport, said: Mapping[str, Any]) -> None:
        timing = said["timing"]
        #: What the fork is written down under; `Client.decisions` says what policies said of it.
        self.intent = str(said["intent"])
        self.requested = int(said["requested"])
        self.warnings = tuple(str(one) for one in said["warnings"])
        self.timing = Timing(timing["decided_us"], timing["forked_us"], timing.get("mother_pause_us"))
        self.missing = [Missing.read(one["problem"]) for one in said["daughters"] if one.get("problem")]
        self._daughters = [
            Machine(
                transport,
                MachineInfo.read(one["machine"]),
                Daughter(one.get("hostname"), one.get("first_instruction_us"), one.get("confirmed_us")),
            )
            for one in said["daughters"]
            if one.get("machine")
        ]

    def __len__(self) -> int:
        return len(self._daughters)

    def __getitem__(self, index: Any) -> Any:
        return self._daughters[index]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._daughters)

    def __repr__(self) -> str:
        return f"<Brood of {len(self)} daughters of {self.requested}>"

    def __enter__(self) -> Brood:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daughter in self:
            daughter.__exit__(kind, error, trace)
