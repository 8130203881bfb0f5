"""Ledger and MLflow: heads kept outside, moves made by hand, and the question who was champion when."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lifecycle import Life

from perennial.cli import main
from perennial.errors import RegistryError
from perennial.housekeeping.record import tend
from perennial.ledger import Entry, Head, Ledger
from perennial.ledger.schema import json_schema
from perennial.ledger.story import version_story
from perennial.ledger.verify import verify
from perennial.registry import heads, moves, tracking, versions
from perennial.registry.checklist import Checklist
from perennial.registry.checklist import record as record_checklist
from perennial.runs import Actor
from perennial.scoring import predict

pytestmark = pytest.mark.integration

M = "m"
ME = Actor("m.score", "run-1", "inputs")


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.fixture
def three(registry: str, tmp_path: Path) -> Ledger:
    """A model with three versions and no champion yet."""
    c = tracking.client()
    c.create_registered_model(M)
    for i in range(3):
        run = tracking.run_of(M, Actor("m.train", f"train-{i + 1}"))
        c.create_model_version(M, str(tmp_path), run_id=run, tags={"spec": f"spec{i}", "snapshot.train.features": "d"})
    return Ledger()


def alias(name: str, version: str | None) -> None:
    """What somebody does in MLflow's UI."""
    if version is None:
        tracking.client().delete_registered_model_alias(M, name)
    else:
        tracking.client().set_registered_model_alias(M, name, version)


def promote(ledger: Ledger, version: str, expected: str | None, day: str, run: str = "", **more: Any) -> None:
    actor = Actor("m.train", run or f"train-{version}", "rollout", "ann")
    record_checklist(Checklist(M, version, ()), ledger, actor, utc(day).isoformat())
    versions.promote(M, version, expected=expected, reason=f"{version} is better", as_of=utc(day), actor=actor,
                     ledger=ledger, **more)  # fmt: skip


def reconcile(ledger: Ledger, day: str = "2013-05-01", actor: Actor = ME, **more: Any) -> list[Entry]:
    return versions.reconcile(M, as_of=utc(day), actor=actor, ledger=ledger, settle=0, **more)


def found(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [
        (e.figures["alias"], e.figures["from"], e.version)
        for e in ledger.find(M, event="alias")
        if e.verdict == moves.FOUND
    ]


# --------------------------------------------------------------------------------------------------------------- heads


def test_a_promotion_keeps_the_head_and_a_cut_tail_shows(three: Ledger, home: Path) -> None:
    promote(three, "1", None, "2013-03-01")
    assert heads.kept() == {M: {"MLflow's registered model": three.head(M)}}
    three.append(Entry("later", "gate", M, "pass", ""))
    look = verify(three, M, heads.kept()[M])
    assert look.whole and look.head == Head(2, look.head.sha256)
    for seq in (2, 1, 0):
        (home / "ledger" / M / f"{seq:010d}.json").unlink()
    (cut,) = verify(Ledger(), M, heads.kept()[M]).findings
    assert cut.kind == "cut" and "the chain is gone, and MLflow's registered model knows of entry 1" in cut.text


def test_a_feed_has_its_head_in_an_experiment(three: Ledger) -> None:
    for name in ("flights", "weather"):
        three.append(Entry("a", "ingestion", name, "commit", ""))
        assert heads.advance(name, three) == three.head(name)
        assert heads.advance(name, three) is None, "it is there already"
    where = "MLflow's experiment perennial.ledger"
    assert heads.kept() == {n: {where: three.head(n)} for n in ("flights", "weather")}


def test_a_head_moves_forward_only_and_never_past_damage(three: Ledger, home: Path) -> None:
    for i in range(4):
        three.append(Entry(f"e{i}", "gate", M, "pass", ""))
    kept = heads.advance(M, three)
    assert kept == three.head(M)
    last = home / "ledger" / M / "0000000003.json"
    whole = last.read_bytes()
    last.unlink()
    assert heads.advance(M, Ledger()) is None
    Ledger().append(Entry("another", "gate", M, "pass", ""))
    Ledger().append(Entry("and another", "gate", M, "pass", ""))
    assert heads.advance(M, Ledger()) is None
    assert heads.kept()[M]["MLflow's registered model"] == kept
    assert [f.kind for f in verify(Ledger(), M, heads.kept()[M]).findings] == ["rewritten"]
    last.write_bytes(whole)  # put right; but what was written after another entry does not follow
    assert heads.advance(M, Ledger()) is None
    (home / "ledger" / M / "0000000004.json").unlink()
    Ledger().append(Entry("good", "gate", M, "pass", ""))
    assert heads.advance(M, Ledger()) == Ledger().head(M)


def test_an_outage_of_mlflow_breaks_nothing_and_an_orphan_writes_nothing(
    three: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.append(Entry("a", "gate", M, "pass", ""))

    def dead() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        heads.advance(M, three, dead)
    assert heads.kept() == {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracking.client.cache_clear()
    assert heads.advance(M, three) is None
    assert three.append(Entry("b", "gate", M, "pass", "")).seq == 1


# --------------------------------------------------------------------------------------------------- moves made by hand


def test_what_is_as_the_ledger_says_is_not_written(three: Ledger) -> None:
    assert reconcile(three) == []
    promote(three, "1", None, "2013-03-01")
    promote(three, "2", "1", "2013-04-01")
    assert versions.aliases(M) == {"champion": "2", "previous": "1"}
    assert reconcile(three) == []
    assert len(three.find(M, event="alias")) == 2


#: what somebody does by hand -> what must be on record: alias, from, to
BY_HAND: dict[str, tuple[Callable[[], object], list[tuple[Any, ...]]]] = {
    "champion moved": (lambda: alias("champion", "3"), [("champion", "2", "3")]),
    "champion deleted": (lambda: alias("champion", None), [("champion", "2", None)]),
    "previous moved": (lambda: alias("previous", "3"), [("previous", "1", "3")]),
    "previous deleted": (lambda: alias("previous", None), [("previous", "1", None)]),
    "challenger set": (lambda: alias("challenger", "3"), [("challenger", None, "3")]),
    "both swapped": (
        lambda: (alias("champion", "1"), alias("previous", "2")), [("champion", "2", "1"), ("previous", "1", "2")],
    ),
    "the champion's version deleted": (
        lambda: tracking.client().delete_model_version(M, "2"), [("champion", "2", None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BY_HAND)
def test_a_move_by_hand_is_recorded_once(what: str, three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    promote(three, "2", "1", "2013-04-01")
    act, expected = BY_HAND[what]
    act()
    with ThreadPoolExecutor(4) as pool:  # four runs look at once
        list(pool.map(lambda i: reconcile(Ledger(), actor=Actor("m.score", f"run-{i}", "inputs")), range(4)))
    assert found(three) == expected
    for day in ("2013-05-01", "2013-06-01"):  # a retry, a cleared run, and a later one
        assert reconcile(three, day) == []
    assert found(three) == expected
    last = three.last(M, event="alias")
    assert last is not None and "by hand in MLflow" in last.reason and last.actor["dag_id"] == "m.score"
    for e in three.entries(M):
        jsonschema.validate(json.loads(e.to_bytes()), json_schema())
    assert heads.kept()[M]["MLflow's registered model"] == three.head(M)


def test_moved_to_and_fro_is_two_moves(three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    for version in ("2", "1", "2"):
        alias("champion", version)
        reconcile(three)
    assert found(three) == [("champion", "1", "2"), ("champion", "2", "1"), ("champion", "1", "2")]


def test_a_difference_that_passes_is_none(three: Ledger) -> None:
    """Score looks while a promotion has moved the alias and not written it down yet."""
    promote(three, "1", None, "2013-03-01")
    seen: list[int] = []

    def look() -> dict[str, str]:
        if seen:  # by the second look the promotion is done
            promote(three, "2", "1", "2013-04-01")
        seen.append(1)
        return {"champion": "2", "previous": "1"}

    assert moves.reconcile(M, look, as_of=utc("2013-05-01"), actor=ME, ledger=three, settle=0.01) == []
    assert found(three) == [] and len(seen) == 2


def test_a_promotion_that_was_cut_off_is_no_move_by_hand(three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    alias("previous", "1")  # the first of its two moves
    assert reconcile(three) == []
    promote(three, "2", "1", "2013-04-01")
    assert reconcile(three) == [] and found(three) == []


def test_a_promotion_writes_down_what_it_replaces(three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    alias("champion", "2")
    alias("challenger", "3")
    promote(three, "3", "2", "2013-04-01")
    assert found(three) == [("champion", "1", "2"), ("challenger", None, "3")]
    assert versions.aliases(M) == {"champion": "3", "challenger": "3", "previous": "2"}
    assert reconcile(three) == []


def test_scoring_the_past_does_not_change_what_is_said_of_it(three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    promote(three, "2", "1", "2013-04-01")
    alias("champion", "3")
    (entry,) = reconcile(three, "2013-02-01")  # a backfill looks first
    assert entry.as_of == "2013-04-01T00:00:00+00:00"
    serving = [versions.serving_at(M, utc(day), three).version for day in ("2013-03-15", "2013-04-01", "2013-06-01")]
    assert serving == ["1", "3", "3"]


def test_a_champion_that_was_only_ever_set_by_hand_serves_every_day(three: Ledger) -> None:
    alias("champion", "1")
    reconcile(three, "2013-05-01")
    assert versions.serving_at(M, utc("2013-03-01"), three).version == "1", "nobody knows since when it is champion"


def test_maintenance_reconciles_and_keeps_heads(three: Ledger) -> None:
    promote(three, "1", None, "2013-03-01")
    three.append(Entry("a", "ingestion", "flights", "commit", ""))
    alias("champion", None)
    done = tend([M, "unheard_of"], three, Actor("perennial.maintain", "1", "reconcile"), utc("2013-05-01"))
    assert done.moved == (
        "m: champion is gone, and the ledger said version 1: deleted by hand in MLflow, or by a task that was killed "
        "before it could write it down",
    )
    assert {s: max(h.seq for h in kept.values()) for s, kept in heads.kept().items()} == {M: 2, "flights": 0}
    assert tend([M], three, ME, utc("2013-05-01")).moved == ()


# -------------------------------------------------------------------------------- who was champion, and why


def judged(ledger: Ledger, version: str, day: str) -> None:
    """What a training run writes before its promotion."""
    run = versions.get(M, version).run_id
    common: dict[str, Any] = {
        "subject": M,
        "as_of": f"{day}T00:00:00+00:00",
        "actor": {"dag_id": "m.train", "run_id": f"train-{version}"},
        "digests": {"spec": "s" * 64},
    }
    act = f"act{version}"
    ledger.append(Entry(f"t{version}/gate/floor/{act}", "gate", verdict="pass", reason="AUC .7 is over the floor .62",
                        figures={"gate": "floor", "auc": 0.7, "mlflow_run": run}, **common))  # fmt: skip
    ledger.append(Entry(f"t{version}/decision/{act}", "decision", verdict="pass", reason="every gate passed",
                        figures={"mlflow_run": run, "holdout": ["2013-02-01", "2013-02-14"]}, **common))  # fmt: skip


@pytest.fixture
def told(three: Ledger) -> Ledger:
    """Version 1 on March 1, version 2 on April 1, and by hand version 3 from May 1."""
    for version, expected, day in (("1", None, "2013-03-01"), ("2", "1", "2013-04-01")):
        judged(three, version, day)
        promote(three, version, expected, day)
    alias("champion", "3")
    reconcile(three, "2013-05-01")
    return three


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["ledger", "show", M, *words]) == 0
    return capsys.readouterr().out


def test_show_says_who_was_champion_on_a_day_and_on_what_evidence(
    told: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ask(capsys, "--at", "2013-04-15")
    run = versions.get(M, "2").run_id
    for words in (
        "m at 2013-04-15: version 2 was champion", "since       2013-04-01 00:00 UTC (as of)", "before      version 1",
        "promote (entry 7): 2 is better", "who         ann, m.train train-2", "pass (entry 5): every gate passed",
        "on 2013-02-01 to 2013-02-14", f"/runs/{run}", "floor: pass: AUC .7 is over the floor .62", "auc 0.7",
    ):  # fmt: skip
        assert words in said, said
    assert "\x1b[" not in said, "plain text off a terminal"
    value = json.loads(ask(capsys, "--at", "2013-03-31T23:59:00", "--json"))
    assert (value["champion"], value["move"]["actor"]["user"], value["decision"]["verdict"]) == ("1", "ann", "pass")
    assert [g["figures"]["gate"] for g in value["gates"]] == ["floor"]
    assert "had no champion at 2013-02-28" in ask(capsys, "--at", "2013-02-28")
    assert "version 1 was champion" in ask(capsys, "--at", "2013-03-01"), "the day on which it became champion"
    by_hand = ask(capsys, "--at", "2013-05-02")
    assert "by hand in MLflow, found by m.score run-1" in by_hand and "decision    none on record" in by_hand


def test_show_without_a_day_is_every_move(told: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(capsys).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "as of",
        "2013-03-01 00:00",
        "2013-04-01 00:00",
        "2013-05-01 00:00",
    ]
    assert "version 2" in lines[2] and "pass, entry 5" in lines[2] and "found" in lines[3]
    value = json.loads(ask(capsys, "--json"))
    assert [m["move"]["version"] for m in value["moves"]] == ["1", "2", "3"]
    assert [bool(m["decision"]) for m in value["moves"]] == [True, True, False]


@pytest.mark.parametrize(
    ("words", "says"),
    [(["nobody"], "has no entry of nobody: there are m"), ([M, "--at", "soon"], "'soon' is no date"), ([], "MODEL")],
)
def test_show_says_what_was_asked_wrongly(
    words: list[str], says: str, told: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "show", *words]) == 2
    assert says in capsys.readouterr().err


def test_clocks_that_disagree_do_not_move_champions(three: Ledger) -> None:
    for version, expected, day, year in (("1", None, "2013-03-01", 2031), ("2", "1", "2013-04-01", 2001)):
        own = Ledger(now=lambda year=year: dt.datetime(year, 1, 1, tzinfo=dt.UTC))  # type: ignore[misc]
        promote(own, version, expected, day)
    assert versions.serving_at(M, utc("2013-03-15"), three).version == "1"
    assert versions.serving_at(M, utc("2013-04-15"), three).version == "2"


def test_a_versions_story_is_whole(told: Ledger) -> None:
    told.append(Entry("a1", "approval", M, "approved", "looks good", version="2", actor={"user": "bob"}))
    story = version_story(told, M, "2")
    assert story.decision is not None and story.mlflow_run == versions.get(M, "2").run_id
    assert [e.event for e in story.entries] == ["gate", "decision", "checklist", "alias", "alias", "approval"]
    assert [e.id for e in story.gates] == ["t2/gate/floor/act2"]
    older = [dataclasses.replace(e, figures={k: v for k, v in e.figures.items() if k != "mlflow_run"})
             if e.event == "alias" else e for e in told.entries(M)]  # fmt: skip
    old = Ledger(f"{told.store.uri}-of-old")
    for e in older:
        old.append(dataclasses.replace(e, seq=-1, prev="", at=""))
    assert version_story(old, M, "2").decision is not None, "entries that do not name the run are matched by DAG run"
    assert version_story(told, M, "3").decision is None


def test_score_writes_down_what_was_moved_by_hand_before_it_goes_by_it(life: Life) -> None:
    model, key, at = life.spec.name, "2013-03-20", utc("2013-03-21T04:00")
    actor = life.actor("run-1", "inputs", "score")
    two = life.second()
    tracking.client().set_registered_model_alias(model, "champion", two)
    for _ in range(2):
        (arm,) = predict.resolve_arms(life.spec, life.entity, key, at, life.ledger, None, actor)
        assert arm.version == two
    tracking.client().delete_registered_model_alias(model, "champion")
    with pytest.raises(RegistryError, match="has no champion"):
        predict.resolve_arms(life.spec, life.entity, key, at, life.ledger, None, actor)
    named = [e.version for e in life.ledger.find(model, event="alias", verdict=moves.FOUND)]
    assert named == [two, None]
    look = verify(life.ledger, model, heads.kept()[model])
    assert look.whole and look.kept["MLflow's registered model"] == look.head
    for e in life.ledger.entries(model):
        jsonschema.validate(json.loads(e.to_bytes()), json_schema())
        assert "git_commit" in e.digests and (e.as_of or e.partition) and e.actor["dag_id"]
    story = version_story(life.ledger, model, "1")
    assert story.decision is not None and {"floor", "baseline"} <= {str(g.figures["gate"]) for g in story.gates}
    assert {"spec", "features", "git_commit", "lock_sha256"} <= story.decision.digests.keys()
