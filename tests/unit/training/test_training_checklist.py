"""Every item of the checklist follows from facts: met, not met with a sentence, not applicable, or waived by name."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import UnmetError, UsageError
from perennial.ledger import Entry, Ledger
from perennial.registry import checklist
from perennial.registry.checklist import ITEMS, Checklist, Item
from perennial.runs import Actor
from perennial.specs import ModelSpec
from perennial.specs.loader import load_specs
from perennial.training.checklist import Facts, judge

pytestmark = pytest.mark.fast

AS_OF = dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC)
ACTOR = Actor("flight_delay.train", "run-1", "checklist", "ann")


def entry(event: str, verdict: str, reason: str = "", **figures: Any) -> Entry:
    return Entry(id=event, event=event, subject="flight_delay", verdict=verdict, reason=reason, figures=figures)


GOOD = Facts(
    model="flight_delay",
    version="2",
    digests={"git_commit": "c0ffee" * 6, "git_dirty": "false", "lock_sha256": "a1" * 32},
    data={"train features": None, "holdout features": None},
    rows=1000,
    pinned={"scikit-learn": "1.9.1", "numpy": "2.4.0"},
    runtime={
        "python": "3.11.7",
        "machine": "Linux x86_64",
        "blas": "openblas",
        "libraries": {"scikit_learn": "1.9.1", "perennial": "0.1.0"},
    },
    threads={"openmp": 1},
    seed=7,
    requirements=("scikit-learn==1.9.1",),
    train_end=dt.datetime(2013, 2, 13, 5, tzinfo=dt.UTC),
    judged_from=dt.datetime(2013, 2, 14, 5, tzinfo=dt.UTC),
    holdout="2013-02-14 to 2013-02-27",
    decision=entry("decision", "pass"),
    rival="1",
    rivals_train_end=dt.datetime(2013, 1, 20, tzinfo=dt.UTC),
    unseen=14,
    compared=14,
    stance="audited",
    not_applicable=None,
    fairness=entry("gate", "pass", "3 differences are small", gate="fairness", mode="enabled"),
    signature=entry("signature", "signed", key="f" * 64, digest="d" * 64),
    digest="d" * 64,
    stage=entry("stage", "pass", "200 rows, bit for bit"),
    fallback="1",
    first=False,
    lost=None,
)
LATER = dt.datetime(2013, 2, 20, tzinfo=dt.UTC)

UNMET: list[tuple[str, dict[str, Any], str]] = [
    ("code_committed", {"digests": {**GOOD.digests, "git_dirty": "true"}}, "changes that were not committed"),
    ("code_committed", {"digests": {**GOOD.digests, "git_commit": "unknown", "git_dirty": "true"}}, "no commit"),
    ("data_versioned", {"data": {"train features": "the log was removed"}}, "the log was removed"),
    ("data_versioned", {"data": {}}, "names no snapshot"),
    ("dependencies_locked", {"digests": {**GOOD.digests, "lock_sha256": "none"}}, "no requirements.lock"),
    ("dependencies_locked", {"pinned": {"scikit-learn": "1.9.0"}}, "scikit_learn 1.9.1 ran, the lock says 1.9.0"),
    ("dependencies_locked", {"pinned": {"numpy": "2.4.0"}}, "the lock says nothing"),
    ("environment_captured", {"runtime": {**GOOD.runtime, "python": ""}}, "not on record: python"),
    ("environment_captured", {"seed": None}, "not on record: seed"),
    ("environment_captured", {"requirements": ("scikit-learn>=1",)}, "not pinned: scikit-learn>=1"),
    ("environment_captured", {"requirements": ()}, "there are none"),
    ("unseen_data", {"decision": None}, "no evaluation"),
    ("unseen_data", {"judged_from": dt.datetime(2013, 2, 1, tzinfo=dt.UTC)}, "begins before the end of training"),
    ("unseen_data", {"rivals_train_end": LATER, "unseen": 8}, "compared on 14 blocks, and trained on all but 8"),
    ("unseen_data", {"rivals_train_end": None}, "nobody knows until when version 1"),
    ("bias_tested", {"fairness": entry("gate", "fail", "women", mode="dry_run")}, "fail: women"),
    ("bias_tested", {"fairness": entry("gate", "hold", "few", mode="enabled")}, "hold: few"),
    ("bias_tested", {"fairness": None}, "none is on record"),
    ("bias_tested", {"fairness": None, "stance": "undeclared"}, "names no protected column"),
    ("bias_tested", {"fairness": None, "stance": "off"}, "switched the fairness gate off"),
    ("registered_and_signed", {"signature": None}, "no signature"),
    ("registered_and_signed", {"signature": entry("signature", "refused", "a file was added")}, "a file was added"),
    ("registered_and_signed", {"digest": "e" * 64}, "its digest was dddddddddddddddd when it was registered"),
    ("stage_checked", {"stage": None}, "no stage check"),
    ("stage_checked", {"stage": entry("stage", "fail", "2 s per 1,000 rows")}, "2 s per 1,000 rows"),
    ("rollback_ready", {"fallback": None, "lost": "version 1 cannot be loaded again: gone"}, "cannot be loaded"),
    ("rollback_ready", {"fallback": None}, "no champion to go back to"),
]


@pytest.fixture
def spec(home: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    monkeypatch.delenv("PERENNIAL_WAIVE", raising=False)
    return load_specs(only="flight_delay").model("flight_delay")


def waiving(spec: ModelSpec, item: str, reason: str = "we know") -> ModelSpec:
    return ModelSpec.model_validate({**spec.model_dump(), "waive": [{"item": item, "reason": reason}]})


def test_good_facts_meet_every_item_and_say_why(spec: ModelSpec) -> None:
    found = judge(GOOD, spec)
    assert [i.item for i in found.items] == list(ITEMS)
    assert {i.state for i in found.items} == {"met"}
    assert all(i.reason for i in found.items)
    assert found.verdict == "met"


def test_the_unmet_cases_cover_every_item() -> None:
    assert {name for name, _, _ in UNMET} == set(ITEMS)


@pytest.mark.parametrize(("item", "change", "says"), UNMET)
def test_an_unmet_item_blocks_with_a_sentence(spec: ModelSpec, item: str, change: dict[str, Any], says: str) -> None:
    found = judge(replace(GOOD, **change), spec)
    assert [i.item for i in found.unmet] == [item]
    assert says in found.unmet[0].reason
    assert found.verdict == "not_met"
    ledger = Ledger()
    checklist.record(found, ledger, ACTOR, AS_OF.isoformat())
    with pytest.raises(UnmetError, match=r"version 2 is not promoted, because its checklist is not met: .*waive"):
        checklist.require(ledger, "flight_delay", "2", "promote")


@pytest.mark.parametrize(("item", "change", "says"), UNMET)
def test_a_waiver_by_name_lets_it_through_and_is_on_record(
    spec: ModelSpec, item: str, change: dict[str, Any], says: str
) -> None:
    found = judge(replace(GOOD, **change), waiving(spec, item))
    assert [(i.item, i.state) for i in found.items if i.state != "met"] == [(item, "waived")]
    assert found.verdict == "waived"
    ledger = Ledger()
    checklist.record(found, ledger, ACTOR, AS_OF.isoformat())
    checklist.require(ledger, "flight_delay", "2", "promote")
    (entry,) = ledger.find("flight_delay", event="checklist")
    assert entry.verdict == "waived"
    assert "we know" in entry.reason
    assert says in entry.figures[item]["reason"]
    assert entry.figures[item]["waiver"] == "waived by the spec: we know"


def test_a_waiver_of_another_item_does_not_help(spec: ModelSpec) -> None:
    found = judge(replace(GOOD, stage=None), waiving(spec, "code_committed"))
    assert [i.item for i in found.unmet] == ["stage_checked"]
    assert not found.waived


def test_the_environment_can_waive_and_says_so(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_WAIVE", "code_committed: a notebook; stage_checked: no stage here")
    found = judge(replace(GOOD, stage=None), spec)
    assert [(i.item, i.waiver) for i in found.waived] == [("stage_checked", "waived by PERENNIAL_WAIVE: no stage here")]


@pytest.mark.parametrize("said", ["everything: why", "code_committed", "code_committed: "])
def test_an_environment_that_waives_nothing_that_exists_is_refused(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("PERENNIAL_WAIVE", said)
    with pytest.raises(UsageError, match="write item: reason"):
        judge(GOOD, spec)


def test_a_first_version_needs_nothing_to_roll_back_to(spec: ModelSpec) -> None:
    first = replace(GOOD, version="1", rival=None, rivals_train_end=None, fallback=None, first=True)
    states = {i.item: (i.state, i.reason) for i in judge(first, spec).items}
    assert states["rollback_ready"] == (
        "not_applicable",
        "this is the first version to serve: before it there was none",
    )
    assert states["unseen_data"][0] == "met"


def test_bias_can_be_declared_not_applicable_with_its_reason(spec: ModelSpec) -> None:
    facts = replace(GOOD, fairness=None, stance="not_applicable", not_applicable="Trains, not people.")
    item = next(i for i in judge(facts, spec).items if i.item == "bias_tested")
    assert (item.state, item.reason) == ("not_applicable", "the spec says: Trains, not people.")


def test_blocks_that_the_champion_trained_on_may_be_left_out(spec: ModelSpec) -> None:
    facts = replace(GOOD, rivals_train_end=LATER, unseen=8, compared=8)
    item = next(i for i in judge(facts, spec).items if i.item == "unseen_data")
    assert item.state == "met"
    assert "left out of the comparison" in item.reason


def test_the_newest_checklist_counts_and_a_repeated_one_is_written_once(spec: ModelSpec) -> None:
    ledger = Ledger()
    bad, good = judge(replace(GOOD, stage=None), spec), judge(GOOD, spec)
    for found in (bad, bad, good, good):
        checklist.record(found, ledger, ACTOR, AS_OF.isoformat())
    assert [e.verdict for e in ledger.find("flight_delay", event="checklist")] == ["not_met", "met"]
    checklist.require(ledger, "flight_delay", "2", "promote")
    assert checklist.on_record(ledger, "flight_delay", "2") == good


def test_nothing_on_record_is_no_pass(spec: ModelSpec) -> None:
    with pytest.raises(UnmetError, match="no checklist on record"):
        checklist.require(Ledger(), "flight_delay", "2", "promote")


@pytest.mark.parametrize(("verdict", "free"), [("promote", True), ("roll_back", True), ("found", False)])
def test_only_a_version_that_was_promoted_before_can_be_rolled_back_to_freely(
    spec: ModelSpec, verdict: str, free: bool
) -> None:
    ledger = Ledger()
    moved = entry("alias", verdict, alias="champion")
    ledger.append(replace(moved, version="1"))
    assert checklist.exempt(ledger, "flight_delay", "1", "roll_back") is free
    assert not checklist.exempt(ledger, "flight_delay", "1", "promote")
    assert not checklist.exempt(ledger, "flight_delay", "2", "roll_back")


def test_what_an_approver_reads_has_a_line_for_each_item(spec: ModelSpec) -> None:
    lines = judge(replace(GOOD, stage=None), spec).lines()
    assert len(lines) == len(ITEMS)
    assert "       not met  Stage check passed: no stage check of it is on record" in lines


def test_a_checklist_survives_json() -> None:
    found = Checklist("m", "3", (Item("code_committed", "waived", "dirty", "known"),))
    assert Checklist.from_dict(found.to_dict()) == found
