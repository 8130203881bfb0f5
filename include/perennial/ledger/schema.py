"""The one schema of a ledger entry: which fields there are, what they hold, and which events exist.

``docs/ledger-entry.schema.json`` is made from here (``perennial ledger schema``). :func:`problem` is the same schema as
a check that costs microseconds, because ``verify`` asks it of every entry.
"""

from __future__ import annotations

import re
from typing import Any

SCHEMA = 1
DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: Event -> what it records. A new kind of entry needs a line here, and then stands in docs/trust.md by itself.
EVENTS: dict[str, str] = {
    "alias": "an alias of a registered version moved (`promote`, `roll_back`), or was found moved by hand (`found`)",
    "approval": "somebody approved or refused, or the time to do so ran out",
    "checklist": "the checklist before promotion: every item with its fact",
    "decision": "what all gates came to for a candidate: `pass`, `fail`, `hold`",
    "gate": "one gate's verdict on a candidate, with its figures: `pass`, `fail`, `hold`, `not_applicable`",
    "guard": "whether a retraining may start: `started`, `passed`, `declined`",
    "ingestion": "what became of a partition that landed: `commit`, `quarantine_rows`, `quarantine_batch`, `missing`",
    "judging": "a candidate took its place among those judged against one champion on one holdout",
    "monitoring": "what a monitoring run came to: `quiet`, `alert`, `ask`",
    "rearm": "somebody lets monitoring ask again for a version",
    "retention": "rows, predictions or candidates were removed because the spec says so",
    "retraining_requested": "monitoring asked for a retraining",
    "rollout": "a step of a rollout: held, advanced, promoted, aborted",
    "scoring": "a partition's scores were `refused`, published `degraded`, or `restored`",
    "signature": "a version's signature was made, verified or refused",
    "skipped": "a partition was not scored because the model is paused",
    "stage": "the stage check of a registered candidate",
    "state": "a model was `paused` or `resumed`",
}

_HASH = re.compile(r"[0-9a-f]{64}")
_TEXT = {"type": "string"}
_SOME_TEXT = {"type": "string", "minLength": 1}
_MAYBE = {"type": ["string", "null"]}
_INSTANT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?\+00:00$"
_INSTANTS = re.compile(_INSTANT)

#: Field -> its schema. The order is that of :class:`perennial.ledger.entries.Entry`.
FIELDS: dict[str, dict[str, Any]] = {
    "id": _SOME_TEXT | {"description": "names the act (run, task, event), so that a retry of it adds nothing"},
    "event": {"enum": list(EVENTS), "description": "what kind of act"},
    "subject": _SOME_TEXT | {"description": "the model or feed whose chain this is"},
    "verdict": _SOME_TEXT | {"description": "what it came to"},
    "reason": _TEXT | {"description": "why, in a sentence"},
    "as_of": _MAYBE | {"description": "the instant up to which the act knew things, ISO 8601 with its offset"},
    "version": _MAYBE | {"description": "the registered version that it is about; null: none, or none yet"},
    "partition": _MAYBE | {"description": "the partition's key; null: none, or many"},
    "figures": {"type": "object", "description": "the figures behind it, by event"},
    "actor": {
        "type": "object",
        "description": "who: dag_id, run_id, task_id, and the Airflow user who started the run by hand",
    },
    "digests": {
        "type": "object",
        "additionalProperties": _TEXT,
        "description": "sha256 of spec, features, data and lock, and the git commit of the code that acted",
    },
    "schema": {"const": SCHEMA, "description": "version of this schema"},
    "seq": {"type": "integer", "minimum": 0, "description": "number in the chain, which is also the file's name"},
    "prev": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "sha256 of the entry before; zeros: none"},
    "at": {"type": "string", "pattern": _INSTANT, "description": "wall clock of the writer, ISO 8601 UTC"},
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an entry as it stands in the ledger."""
    return {
        "$schema": DIALECT,
        "title": "Perennial ledger entry",
        "description": "One object under <ledger>/<subject>/<seq, ten digits>.json: canonical JSON (sorted keys, no "
        "spaces, UTF-8), never changed once written. docs/trust.md says what the events mean.",
        "type": "object",
        "additionalProperties": False,
        "required": list(FIELDS),
        "properties": FIELDS,
    }


def events_table() -> str:
    """The table of events, as docs/trust.md shows it."""
    rows = "".join(f"| `{event}` | {meaning} |\n" for event, meaning in sorted(EVENTS.items()))
    return f"| event | records |\n|---|---|\n{rows}"


def problem(value: Any) -> str | None:
    """Why ``value`` is no entry; ``None`` when it is one."""
    if not isinstance(value, dict):
        return "it is no JSON object"
    if value.get("schema") != SCHEMA:
        return f"its schema is {value.get('schema')!r}, this Perennial knows {SCHEMA}"
    if value.keys() != FIELDS.keys():
        lacking, unknown = sorted(FIELDS.keys() - value.keys()), sorted(value.keys() - FIELDS.keys())
        return "; ".join(
            f"{what} {', '.join(map(str, names))}"
            for what, names in (("it lacks", lacking), ("it has the unknown", unknown))
            if names
        )
    wrong = next((name for name in FIELDS if not _fits(name, value[name])), None)
    return None if wrong is None else f"its {wrong} is {str(value[wrong])[:60]!r}"


def _fits(name: str, value: Any) -> bool:
    if name == "event":
        return isinstance(value, str) and value in EVENTS
    if name == "prev":
        return isinstance(value, str) and _HASH.fullmatch(value) is not None
    if name == "at":
        return isinstance(value, str) and _INSTANTS.match(value) is not None
    if name in ("id", "subject", "verdict"):
        return isinstance(value, str) and value != ""
    if name == "reason":
        return isinstance(value, str)
    if name in ("as_of", "version", "partition"):
        return value is None or isinstance(value, str)
    if name == "digests":
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if name in ("figures", "actor"):
        return isinstance(value, dict)
    return type(value) is int and (name == "schema" or value >= 0)
