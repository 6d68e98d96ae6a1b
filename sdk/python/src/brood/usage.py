"""What machines used and what it comes to.

Invariant: amounts and quantities are decimals of the engine's own text, never binary fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Mapping


@dataclass(frozen=True)
class Measured:
    """What was measured, rated or not."""

    vcpu_hours: Decimal
    cpu_hours: Decimal
    gib_hours: Decimal
    private_gib_hours: Decimal
    disk_gib_hours: Decimal
    forks: Decimal

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Measured:
        return cls(
            Decimal(said["vcpu_hours"]),
            Decimal(said["cpu_hours"]),
            Decimal(said["gib_hours"]),
            Decimal(said["private_gib_hours"]),
            Decimal(said["disk_gib_hours"]),
            Decimal(said["forks"]),
        )


@dataclass(frozen=True)
class Charge:
    """What one thing that is sold comes to: `units` of it, the sum of so many lines."""

    item: str
    currency: str
    unit: str
    units: Decimal
    amount: Decimal
    lines: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Charge:
        return cls(
            said["item"], said["currency"], said["unit"], Decimal(said["units"]), Decimal(said["amount"]), said["lines"]
        )


@dataclass(frozen=True)
class UsageGroup:
    """One part of a summary; its name is empty for all, and for fees."""

    group: str
    measured: Measured
    charges: tuple[Charge, ...]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> UsageGroup:
        charges = tuple(Charge.read(one) for one in said["charges"])
        return cls(said["group"], Measured.read(said["measured"]), charges)


@dataclass(frozen=True)
class Usage:
    """What usage of a month comes to. `totals` is by currency; `unsealed` records and `held` batches are not in it yet, `dead`
    ones wait for an operator."""

    period: str
    groups: tuple[UsageGroup, ...]
    totals: Mapping[str, Decimal]
    unsealed: int
    held: int
    dead: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Usage:
        return cls(
            said["period"],
            tuple(UsageGroup.read(one) for one in said["groups"]),
            {one["currency"]: Decimal(one["amount"]) for one in said["totals"]},
            said["unsealed"],
            said["held"],
            said["dead"],
        )
