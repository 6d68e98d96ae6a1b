"""An admission plugin in Python: change freezes. `freeze.py` decides; this is its way to the engine."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.admission import Verdict_Abstain, Verdict_Deny
from wit_world.exports.plugin import Description, Diagnostic
from wit_world.imports import clock, config
from wit_world.imports.types import Denial, HookError_Misconfigured

import freeze


class Plugin(exports.Plugin):
    def describe(self):
        return Description("freeze", "0.1.0", json.dumps(freeze.SCHEMA), [])

    def prepare(self, document):
        freezes, wrong = freeze.read(document)
        if wrong:
            raise Err([Diagnostic(at, message) for at, message in wrong])
        return [("freezes", json.dumps(freezes).encode())]


class Admission(exports.Admission):
    def review(self, items):
        [prepared] = config.prepared(["freezes"])
        if prepared is None:
            raise Err(HookError_Misconfigured("nothing is prepared"))
        freezes, now = json.loads(prepared), clock.now()
        return [verdict(freezes, item.request, now) for item in items]


def verdict(freezes, request, now):
    # What exists already goes on: only what begins something new is frozen.
    if request.operation in ("resume", "extend"):
        return Verdict_Abstain()
    refused = freeze.refusal(freezes, request.who.tenant, now)
    if refused is None:
        return Verdict_Abstain()
    message, retry_after_ms = refused
    return Verdict_Deny(Denial("policy", message, retry_after_ms))
