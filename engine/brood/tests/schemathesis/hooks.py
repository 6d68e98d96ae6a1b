"""What schemathesis cannot know: which objects are alive, and that some requests use theirs up.

A request that is meant to be good gets a live object where the path names one. Operations that end or change what they
are asked about get one of their own. Who was made is ended again, so that quotas last. At the end it is written down how
many answers of each status every operation gave.
"""

import atexit
import collections
import datetime
import functools
import itertools
import json
import os
import threading

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario

with open(os.environ["BROOD_LIVE"]) as file:
    LIVE = json.load(file)
URL = LIVE["url"]
SESSION = requests.Session()
SESSION.headers["Authorization"] = f"Bearer {LIVE['token']}"
NUMBER = itertools.count(1)
# Answers by operation and status.
SEEN = collections.defaultdict(collections.Counter)
# Machines and checkpoints that a request was given for itself.
LENT = {}
LOCK = threading.Lock()

# Each needs one that nobody else looks at.
OWN_MACHINE = {"endMachine", "hibernateMachine", "pauseMachine", "resumeMachine", "setTtl", "wakeMachine"}
OWN_KEY = {"revokeKey", "rotateKey"}


def ask(method, path, body=None):
    answer = SESSION.request(method, URL + path, json=body, timeout=30)
    if answer.status_code >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json() if answer.content else None


def own(operation):
    """The path parameters of an object that only this request is about; none where it is not needed."""
    name = f"own-{next(NUMBER)}"
    if operation in OWN_MACHINE:
        forked = ask("POST", f"/v1/machines/{LIVE['machine']}/forks", {"count": 1})
        machine = forked["daughters"][0]["machine"]["id"]
        if operation == "wakeMachine":
            ask("POST", f"/v1/machines/{machine}/hibernate")
        return {"machine": machine}
    if operation == "endCheckpoint":
        return {"checkpoint": ask("POST", f"/v1/machines/{LIVE['machine']}/checkpoints")["id"]}
    if operation in OWN_KEY:
        return {"key": ask("POST", "/v1/keys", {"name": name, "scopes": ["read"]})["key"]["id"]}
    if operation == "removeSecret":
        ask("PUT", f"/v1/secrets/{name}", {"value": "x"})
        return {"name": name}
    if operation == "removeSnapshot":
        return {"snapshot": ask("POST", f"/v1/machines/{LIVE['machine']}/snapshots", {})["id"]}
    if operation == "removeTemplate":
        ask("POST", "/v1/templates", {"name": name, "guest": "bare"})
        return {"template": name}
    return {}


@functools.cache
def exported():
    """A snapshot as it travels."""
    answer = SESSION.get(f"{URL}/v1/snapshots/{LIVE['snapshot']}/export", timeout=30)
    answer.raise_for_status()
    return answer.content


def id_of(case):
    return case.operation.definition.raw.get("operationId", "")


def is_right(case, part=None):
    """Whether nothing about a request, or about a part of it, is meant to be wrong."""
    if case.meta is None:
        return False
    if getattr(case.meta.phase.data, "scenario", None) == CoverageScenario.UNSPECIFIED_HTTP_METHOD:
        return False
    if part in case.meta.components:
        return case.meta.components[part].mode.is_positive
    return case.meta.generation.mode.is_positive


def agree(case):
    """Has parts of a right request agree with each other where no schema says how."""
    body = case.body if isinstance(case.body, dict) else {}
    if "template" in body:
        body["template"] = LIVE["template"]
    if body.get("min_count"):
        body["min_count"] = min(body["min_count"], body["count"])
    if body.get("give_secrets"):
        body["give_secrets"] = [{"name": "token", "env": "TOKEN"}]
    if id_of(case) == "writeStdin" and body.get("text") is not None:
        body["data"] = None
    elif id_of(case) == "writeStdin" and body.get("data") is None:
        body["close"] = True
    if id_of(case) == "correctUsage" and not any(
        body.get(part) is not None for part in ("span_us", "cpu_ns", "private_kib")
    ):
        body["cpu_ns"] = 0
    if id_of(case) == "replayUsage":
        # A month in which nothing can have been rated yet is a conflict.
        body["period"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m")
    if id_of(case) == "readOutput" and "offset" in case.query:
        both = case.query.get("stream", "both") == "both"
        case.query["offset"] = "1-2" if both else "1"
    if id_of(case) == "importSnapshot":
        case.body = exported()
    # The same key with another body is another request's.
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{case.headers['Idempotency-Key'][:200]}{next(NUMBER)}"


@schemathesis.hook
def before_call(context, case, kwargs):
    if not is_right(case, ParameterLocation.PATH):
        return
    lent = own(id_of(case))
    with LOCK:
        LENT[case.id] = lent
    for name in case.path_parameters:
        value = lent.get(name, LIVE.get(name))
        if value is not None:
            case.path_parameters[name] = value
    if is_right(case):
        agree(case)


@schemathesis.hook
def after_call(context, case, response):
    operation = id_of(case)
    if case.method.upper() != case.operation.method.upper():
        return
    made = []
    with LOCK:
        SEEN[operation][response.status_code] += 1
        lent = LENT.pop(case.id, {})
    made += [lent[kind] for kind in ("machine", "checkpoint") if kind in lent]
    if response.status_code in (200, 201) and operation in {"createMachine", "namedMachine", "createCheckpoint"}:
        made.append(response.json()["id"])
    if response.status_code == 201 and operation.startswith("fork"):
        made += [one["machine"]["id"] for one in response.json()["daughters"] if "machine" in one]
    if response.status_code == 201 and operation in {"createSnapshot", "snapshotCheckpoint", "importSnapshot"}:
        SESSION.delete(f"{URL}/v1/snapshots/{response.json()['id']}", timeout=30)
    for one in made:
        for kind in ("machines", "checkpoints"):
            SESSION.delete(f"{URL}/v1/{kind}/{one}", timeout=30)


@atexit.register
def write():
    if SEEN:
        with open(os.environ["BROOD_SEEN"], "w") as file:
            json.dump(SEEN, file)
