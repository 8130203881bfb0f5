"""Where a card goes: the MLflow run's artifacts, the run's reports, and, in short, the version's description."""

from __future__ import annotations

from perennial.lake.table import Fence, no_fence
from perennial.ledger import Ledger
from perennial.ledger.story import version_story
from perennial.registry import tracking, versions
from perennial.registry.checklist import Checklist
from perennial.runs import Actor, RunState
from perennial.training.bundle import Bundle
from perennial.training.card.facts import CardFacts, gather
from perennial.training.card.layout import card
from perennial.training.card.markdown import plain, to_text
from perennial.training.card.measures import headline
from perennial.training.card.page import to_page
from perennial.training.card.parts import interval, number, span
from perennial.training.evaluate import Evaluation

HTML, MARKDOWN = "card.html", "card.md"


def publish(
    version: versions.Version,
    evaluation: Evaluation,
    checklist: Checklist,
    *,
    state: RunState,
    ledger: Ledger,
    actor: Actor,
    fence: Fence = no_fence,
) -> str:
    """Write the card of a version, and link it. Done twice it is written over.

    :param evaluation: what the gates of its run came to. ``checklist``: its newest.
    :returns: where its page can be opened.
    """
    bundle = Bundle.open(version.model, version, actor=actor, fence=fence)
    run_url = tracking.run_url(version.run_id)
    links = (("MLflow run", run_url), ("Decision and gates", state.report_url("decision.html")))
    story = version_story(ledger, version.model, version.version, version.run_id)
    facts = gather(bundle, version.version, version.run_id, evaluation, story, checklist, fallback(checklist), links)
    made = card(facts)
    page = to_page(made)
    client = tracking.client()
    fence()
    client.log_text(version.run_id, page.decode(), HTML)
    client.log_text(version.run_id, to_text(made), MARKDOWN)
    url = state.report(HTML, page)
    fence()
    client.update_model_version(version.model, version.version, description=description(facts, run_url, url))
    return url


def fallback(checklist: Checklist) -> str | None:
    """The sentence on the version to roll back to."""
    item = next((i for i in checklist.items if i.item == "rollback_ready"), None)
    return item.reason if item else None


def description(f: CardFacts, run_url: str, card_url: str) -> str:
    """The version's description in the registry: Markdown, short, with links to the whole."""
    first = headline(f.measures)
    lines = [
        plain(f.plan.spec.description or f"{f.model} has no description."),
        "",
        f"- **{plain(first.name)}** on {span(f.plan.holdout_keys)}: {number(first.value)} "
        f"(95 %: {interval(first.low, first.high)})",
        f"- **Trained on** {span(f.plan.train_keys)}, owner {plain(f.plan.spec.owner)}",
        f"- **Gates:** {f.evaluation.verdict}; **checklist:** {f.checklist.verdict.replace('_', ' ')}",
    ]
    open_items = (*f.checklist.unmet, *f.checklist.waived)
    lines += [f"  - {i.state.replace('_', ' ')}: {plain(i.title)}: {plain(i.words)}" for i in open_items]
    links = (("card", f"{run_url}/artifacts/{HTML}"), ("card in Airflow", card_url), ("run", run_url))
    said = " · ".join(f"[{name}]({url})" for name, url in links if url.startswith("http"))
    return "\n".join([*lines, "", said or f"The card is {HTML} among the artifacts of run {f.run_id}."])
