"""A real version: its card and checklist, from its bundle, lake, ledger and registry, read back from MLflow."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import yaml
from lifecycle import Life, Trained

from perennial.errors import UnmetError
from perennial.lake.homes import feed_table
from perennial.ledger.story import version_story
from perennial.registry import tracking, versions
from perennial.registry.checklist import Checklist, Item, on_record
from perennial.runs import RunState
from perennial.specs import ModelSpec
from perennial.training.attest import record_signature, trust_tags
from perennial.training.bundle import Bundle
from perennial.training.card.facts import CardFacts, gather
from perennial.training.card.layout import NO_README, card
from perennial.training.card.markdown import to_text
from perennial.training.card.page import to_page
from perennial.training.card.publish import publish
from perennial.training.checklist import check

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

AS_OF = dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC)
MODEL = "flight_delay"
SECTIONS = (
    "Model details", "Intended use and limits", "Factors", "Metrics", "Evaluation data", "Training data",
    "Gates and verdicts", "Slices", "Fairness and ethical considerations", "Calibration", "Feature importance",
    "Drift and monitoring", "Caveats", "Checklist before promotion", "Approvals and history",
    "Signature and stage check", "Lineage",
)  # fmt: skip


@pytest.fixture
def trained(life: Life) -> Trained:
    """The first champion's run: its bundle is found again, its gates are computed once more."""
    done = life.train("train-1", AS_OF)
    found = versions.get(MODEL, "1")
    record_signature(found, Bundle.open(MODEL, found), AS_OF, life.ledger, done.actor)
    assert life.stage("1").passed
    return done


def checked(life: Life, version: str = "1", **spec: Any) -> Checklist:
    said = ModelSpec.model_validate({**life.spec.model_dump(), **spec})
    actor = life.actor("train-1", "checklist")
    return check(said, versions.get(MODEL, version), as_of=AS_OF, actor=actor, ledger=life.ledger)


_FACTS: list[CardFacts] = []  # plain values of one version, gathered by the first test that asks


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> CardFacts:
    """What the card of the first version says."""
    if not _FACTS:
        life, done = request.getfixturevalue("life"), request.getfixturevalue("trained")
        found = versions.get(MODEL, "1")
        story = version_story(life.ledger, MODEL, "1", found.run_id)
        bundle = Bundle.open(MODEL, found)
        _FACTS.append(gather(bundle, "1", found.run_id, done.evaluation, story, checked(life), None))
    return _FACTS[0]


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._now, self._head = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._head = tag == "h2"
        self._now = "" if self._head else self._now

    def handle_data(self, data: str) -> None:
        if self._head and not self._now:
            self._now, self._head = data, False
            self.sections[data] = ""
        elif self._now:
            self.sections[self._now] += data


def test_the_first_version_meets_its_checklist_and_has_a_card_in_mlflow(life: Life, trained: Trained) -> None:
    found = checked(life)
    states = {i.item: i.state for i in found.items}
    assert not found.unmet, found.reason
    assert states["data_versioned"] == states["dependencies_locked"] == states["unseen_data"] == "met"
    assert states["rollback_ready"] == states["bias_tested"] == "not_applicable"
    version = versions.get(MODEL, "1")
    given = {"state": RunState(trained.actor), "ledger": life.ledger, "actor": trained.actor}
    url = publish(version, trained.evaluation, found, **given)
    assert url.endswith("card.html")
    client = tracking.client()
    html = Path(client.download_artifacts(version.run_id, "card.html")).read_text()
    text = Path(client.download_artifacts(version.run_id, "card.md")).read_text()

    page = Page(html)
    assert tuple(page.sections) == SECTIONS
    assert all(s.strip() for s in page.sections.values())
    assert "Planning of gates and connections" in page.sections["Intended use and limits"]
    assert "2013-02-14 to 2013-02-27" in page.sections["Evaluation data"]
    bundle = Bundle.open(MODEL, version)
    for part, group in bundle.document("snapshots").items():
        section = page.sections["Training data" if part == "train" else "Evaluation data"]
        assert all(s["sha256"] in section for s in group.values())
    assert bundle.signed.signer in page.sections["Signature and stage check"]
    assert "Stage check: pass" in page.sections["Signature and stage check"]
    assert bundle.facts["state_sha256"] in page.sections["Lineage"]
    value = trained.evaluation.results[0].figures["roc_auc"]
    assert isinstance(value, float) and f"{value:.4g}" in page.sections["Metrics"]

    _, front, body = text.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["pipeline_tag"] == "tabular-classification"
    (result,) = meta["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == "roc_auc"
    assert result["metrics"][0]["value"] == pytest.approx(value)
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == list(SECTIONS)

    description = client.get_model_version(MODEL, "1").description
    assert f"0.{round(value * 10000)}" in description and "card.html" in description
    entries = len(list(life.ledger.entries(MODEL)))
    publish(version, trained.evaluation, checked(life), **given)
    assert len(list(life.ledger.entries(MODEL))) == entries, "done again, nothing is written twice"
    assert client.get_model_version(MODEL, "1").description == description


def test_a_card_loads_nothing_and_runs_nothing(facts: CardFacts) -> None:
    links = (("MLflow run", "https://mlflow.example.org/run"),)
    page = Page(to_page(card(replace(facts, links=links))).decode())
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & {t for t, _ in page.tags}
    for tag, attrs in page.tags:
        assert "src" not in attrs and not any(name.startswith("on") for name in attrs), tag
        assert tag == "a" or "href" not in attrs
    style = to_page(card(facts)).decode().partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_what_strangers_wrote_stays_text(facts: CardFacts) -> None:
    evil = '"><script>alert(1)</script>'
    spec = facts.plan.spec.model_copy(update={"description": evil, "owner": evil})
    gates = tuple(replace(r, reason=evil) for r in facts.evaluation.results)
    facts = replace(
        facts,
        plan=replace(facts.plan, spec=spec),
        evaluation=replace(facts.evaluation, reason=evil, results=gates),
        checklist=Checklist(MODEL, "1", (Item("code_committed", "waived", evil, evil),)),
        readme=f"# x\n{evil}\n[a](javascript:alert(1))\n![b](http://example.org/b.png)",
        links=((evil, "javascript:alert(1)"),),
    )
    made = card(facts)
    page = to_page(made).decode()
    assert "<script" not in page and "javascript:alert" not in re.sub(r">[^<]*<", "><", page)
    assert "<script" not in to_text(made)
    assert "](javascript" not in to_text(made)


def test_without_a_readme_the_card_says_so_plainly(facts: CardFacts) -> None:
    made = card(replace(facts, readme=None))
    assert NO_README in Page(to_page(made).decode()).sections["Intended use and limits"]
    assert "so nobody has said what this model is meant for" in to_text(made)


def test_what_is_not_known_is_said_to_be_not_known(facts: CardFacts) -> None:
    unknown = tuple(replace(m, value=None, low=None, high=None, why_not="no rows") for m in facts.measures)
    facts = replace(
        facts,
        measures=unknown,
        calibration=None,
        importance=None,
        not_shuffled="the rows are gone",
        bundle={**facts.bundle, "runtime": None, "threads": None, "state_sha256": None},
        drift={"calibration": None, "why_not": "the window is too short", "rows": float("nan")},
        rate=float("nan"),
        snapshots={},
    )
    made = card(facts)
    page = Page(to_page(made).decode())
    assert all(s.strip() for s in page.sections.values())
    assert page.sections["Metrics"].count("not known") >= 2 * len(unknown)
    assert "the rows are gone" in page.sections["Feature importance"]
    assert "the window is too short" in page.sections["Drift and monitoring"]
    assert "names no snapshot" in page.sections["Training data"]
    whole = to_page(made).decode().partition("</style>")[2] + to_text(made)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", whole)


def test_rows_that_are_gone_block_a_promotion_by_name(life: Life) -> None:
    done = life.train("own", AS_OF, window_days=14)
    bundle = Bundle.open(MODEL, done.candidate)
    two = versions.register(MODEL, done.candidate.run_id, done.candidate.model_id, trust_tags(bundle))
    record_signature(two, bundle, AS_OF, life.ledger, done.actor)
    assert life.stage("2").passed
    assert not checked(life, "2").unmet
    shutil.rmtree(urlparse(feed_table(life.feeds["arrivals"]).uri).path)
    found = checked(life, "2")
    assert [i.item for i in found.unmet] == ["data_versioned"]
    assert "arrivals" in found.unmet[0].reason

    def promote() -> str | None:
        given = {"expected": "1", "reason": "r", "as_of": AS_OF, "actor": life.actor("x"), "ledger": life.ledger}
        return versions.promote(MODEL, "2", **given)  # type: ignore[arg-type]

    with pytest.raises(UnmetError, match="training data versioned and found again"):
        promote()
    assert versions.aliases(MODEL)["champion"] == "1"
    waived = checked(life, "2", waive=[{"item": "data_versioned", "reason": "kept on tape"}])
    assert waived.verdict == "waived" and "kept on tape" in waived.reason
    promote()
    assert versions.aliases(MODEL) == {"champion": "2", "previous": "1"}
    assert on_record(life.ledger, MODEL, "2") == waived


def test_a_second_version_names_the_one_to_roll_back_to(life: Life) -> None:
    two = life.second()
    found = {i.item: i for i in checked(life, two).items}
    assert (found["rollback_ready"].state, found["rollback_ready"].reason.split(" stays")[0]) == ("met", "version 1")
    assert found["registered_and_signed"].state == found["stage_checked"].state == "not_met"
