"""One documented schema: the file, the check, the dataclass, the page and the code say the same."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.ledger import Entry, Ledger
from perennial.ledger.schema import EVENTS, FIELDS, events_table, json_schema, problem

pytestmark = pytest.mark.fast

PROJECT = Path(__file__).resolve().parents[3]


def test_the_published_schema_is_the_one_in_use() -> None:
    stored = json.loads((PROJECT / "docs" / "ledger-entry.schema.json").read_text())
    assert stored == json_schema(), "run perennial ledger schema --out docs/ledger-entry.schema.json"
    jsonschema.Draft202012Validator.check_schema(stored)
    assert list(FIELDS) == [f.name for f in dataclasses.fields(Entry)]


def test_the_page_has_the_table_of_events() -> None:
    assert events_table() in (PROJECT / "docs" / "trust.md").read_text()


def test_every_event_that_the_code_writes_is_in_the_schema() -> None:
    written = set()
    for folder in ("include", "plugins"):
        for path in (PROJECT / folder).rglob("*.py"):
            for match in re.finditer(r"Entry\(\s*(?:[^()]|\([^()]*\))*?event=\"(\w+)\"", path.read_text()):
                written.add(match[1])
    assert {"gate", "decision", "alias", "guard", "ingestion", "monitoring", "retraining_requested"} <= written
    assert written <= EVENTS.keys()


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.floats(allow_nan=False), st.text(max_size=3),
    st.just("0" * 64), st.just("gate"), st.just("2013-01-01T00:00:00+00:00"), st.just("2013-01-01"), st.just({}),
    st.just({"a": "b"}), st.just({"a": 1}), st.just([]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    change=st.dictionaries(st.sampled_from([*FIELDS, "more"]), VALUES, max_size=2),
    lost=st.sets(st.sampled_from(list(FIELDS)), max_size=1),
)
def test_the_quick_check_agrees_with_the_schema(change: dict[str, object], lost: set[str]) -> None:
    whole = json.loads(
        Entry("a", "gate", "m", "pass", "", seq=0, prev="0" * 64, at="2013-01-01T00:00:00.000+00:00").to_bytes()
    )
    assert problem(whole) is None
    value = {k: v for k, v in (whole | change).items() if k not in lost}
    assert (problem(value) is None) == jsonschema.Draft202012Validator(json_schema()).is_valid(value)


def test_an_entry_says_which_code_acted(tmp_path: Path) -> None:
    ledger = Ledger((tmp_path / "ledger").as_uri())
    stood = ledger.append(Entry("a", "gate", "m", "pass", "", digests={"git_commit": "of the plan"}))
    assert stood.digests["git_commit"] == "of the plan"
    stood = ledger.append(Entry("b", "gate", "m", "pass", ""))
    assert stood.digests.keys() == {"git_commit", "git_dirty", "lock_sha256"}
    for e in ledger.entries("m"):
        jsonschema.validate(json.loads(e.to_bytes()), json_schema())
