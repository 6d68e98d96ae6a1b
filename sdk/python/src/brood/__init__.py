"""A client of Brood, the engine that forks running microVMs.

    from brood import Client

    with Client() as client, client.create("python") as mother:
        with mother.fork(3) as daughters:
            for daughter in daughters:
                print(daughter.exec(["hostname"]).stdout)

Everything goes over the HTTP API. What is refused is raised as a `Problem`; its cause and its remedy are the engine's own
words. The client needs nothing but Python.
"""

from .client import Client
from .errors import (
    BroodError,
    Denied,
    Ended,
    ExecFailed,
    Mistake,
    NotFound,
    Problem,
    Unauthorized,
    Unreachable,
)
from .exec import Completed, Exec, Output
from .files import Files
from .machine import Brood, Checkpoint, Machine, Snapshot
from .types import (
    Daughter,
    DirEntry,
    Event,
    ExecInfo,
    FileStat,
    Info,
    MachineInfo,
    Missing,
    SnapshotInfo,
    Stats,
    Template,
    Timing,
    Tree,
)
from .usage import Charge, Measured, Usage, UsageGroup

__all__ = [
    "Brood",
    "BroodError",
    "Charge",
    "Checkpoint",
    "Client",
    "Completed",
    "Daughter",
    "Denied",
    "DirEntry",
    "Ended",
    "Event",
    "Exec",
    "ExecFailed",
    "ExecInfo",
    "FileStat",
    "Files",
    "Info",
    "Machine",
    "MachineInfo",
    "Measured",
    "Missing",
    "Mistake",
    "NotFound",
    "Output",
    "Problem",
    "Snapshot",
    "SnapshotInfo",
    "Stats",
    "Template",
    "Timing",
    "Tree",
    "Unauthorized",
    "Unreachable",
    "Usage",
    "UsageGroup",
]
