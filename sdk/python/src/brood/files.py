"""Files of a machine's guest."""

from __future__ import annotations

from urllib.parse import quote

from .transport import Transport, path
from .types import DirEntry, FileStat


class Files:
    """Files by absolute paths. A file that is written is there whole or as it was."""

    def __init__(self, transport: Transport, machine: str) -> None:
        self._transport = transport
        self._machine = machine

    def _file(self, name: str) -> str:
        if not name.startswith("/"):
            raise ValueError(f"{name!r} is no absolute path of the guest")
        return path("machines", self._machine, "files") + quote(name)

    def read(self, name: str) -> bytes:
        """All of a file."""
        return self._transport.read(self._transport.open("GET", self._file(name)))

    def read_text(self, name: str) -> str:
        """The same, in UTF-8."""
        return self.read(name).decode()

    def write(self, name: str, data: bytes | str, *, mode: int | None = None) -> int:
        """Writes a file whole; its length. A file that is there keeps its permission bits if none are said."""
        sent = data.encode() if isinstance(data, str) else data
        query = {"mode": None if mode is None else f"{mode:04o}"}
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._transport.open("PUT", self._file(name), query=query, body=sent, headers=headers)
        self._transport.read(answer)
        return len(sent)

    def remove(self, name: str, *, recursive: bool = False) -> None:
        """Removes a file, or a directory."""
        query = {"recursive": "true" if recursive else None}
        self._transport.read(self._transport.open("DELETE", self._file(name), query=query))

    def list(self, name: str) -> list[DirEntry]:
        """What is in a directory, by name."""
        said = self._transport.json("GET", path("machines", self._machine, "directory"), query={"path": name})
        return [DirEntry(one["name"], one["kind"]) for one in said["items"]]

    def stat(self, name: str) -> FileStat:
        """What a path is."""
        said = self._transport.json("GET", path("machines", self._machine, "stat"), query={"path": name})
        return FileStat.read(said)
