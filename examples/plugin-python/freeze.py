"""Change freezes: times in which nothing new begins. Plain Python, so that its tests run without a component.

Settings: {"freezes": [{"from": "2026-12-24T00:00:00Z", "until": "2026-12-27T00:00:00Z", "why": "holidays",
"except": ["on-call"]}]}. Tenants under "except" go on.
"""

import _strptime  # strptime imports it when it is first called, and a component has no files to import from then
import json
from datetime import datetime, timezone

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "description": "Times in which nothing new begins.",
    "type": "object",
    "properties": {
        "freezes": {
            "description": "The freezes.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "from": {"description": "Its first second.", "type": "string", "format": "date-time"},
                    "until": {"description": "The first second after it.", "type": "string", "format": "date-time"},
                    "why": {"description": "What refused callers are told.", "type": "string"},
                    "except": {"description": "Tenants that go on.", "type": "array", "items": {"type": "string"}},
                },
                "required": ["from", "until", "why"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["freezes"],
    "additionalProperties": False,
}


def read(document):
    """The freezes of a document and its mistakes, as (JSON Pointer, message)."""
    try:
        settings = json.loads(document)
    except ValueError as error:
        return [], [("", f"not JSON: {error}")]
    if not isinstance(settings, dict) or not isinstance(settings.get("freezes"), list):
        return [], [("/freezes", "expected a list")]
    wrong = [(f"/{key}", "no such setting") for key in settings if key != "freezes"]
    freezes = []
    for index, entry in enumerate(settings["freezes"]):
        at = f"/freezes/{index}"
        if not isinstance(entry, dict):
            wrong.append((at, "expected an object"))
            continue
        wrong += [(f"{at}/{key}", "no such setting") for key in entry if key not in ("from", "until", "why", "except")]
        start, end = moment(entry, "from", at, wrong), moment(entry, "until", at, wrong)
        if start is not None and end is not None and start >= end:
            wrong.append((f"{at}/until", "not after `from`"))
        why, tenants = entry.get("why"), entry.get("except", [])
        if not isinstance(why, str) or not why.strip():
            wrong.append((f"{at}/why", "expected words for the caller"))
        if not isinstance(tenants, list) or not all(isinstance(tenant, str) for tenant in tenants):
            wrong.append((f"{at}/except", "expected a list of names"))
        freezes.append([start, end, why, tenants])
    return freezes, wrong


def moment(entry, key, at, wrong):
    """Nanoseconds since the epoch of an RFC 3339 time in UTC."""
    try:
        time = datetime.strptime(entry[key], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except (KeyError, TypeError, ValueError):
        wrong.append((f"{at}/{key}", "expected a time such as 2026-12-24T00:00:00Z"))
        return None
    return int(time.timestamp()) * 1_000_000_000


def refusal(freezes, tenant, now):
    """The words for a tenant that may not begin anything now, and the milliseconds until it may; else None."""
    frozen = [freeze for freeze in freezes if freeze[0] <= now < freeze[1] and tenant not in freeze[3]]
    if not frozen:
        return None
    _, end, why, _ = max(frozen, key=lambda freeze: freeze[1])
    return f"nothing new begins until {utc(end)}: {why}", min((end - now + 999_999) // 1_000_000, 0xFFFF_FFFF)


def utc(ns):
    return datetime.fromtimestamp(ns // 1_000_000_000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
