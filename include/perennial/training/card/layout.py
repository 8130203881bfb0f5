"""A card's sections, in the order of Mitchell et al. 2019, from its facts. Says nothing about HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perennial.specs import ModelSpec
from perennial.specs.partitions import grain_of
from perennial.training.audit import (
    FAIRNESS_HEADER,
    SLICES_HEADER,
    fairlearn_rows,
    fairness_rows,
    slice_rows,
)
from perennial.training.card import record, svg
from perennial.training.card.facts import CardFacts
from perennial.training.card.importance import Feature
from perennial.training.card.measures import Measure, headline
from perennial.training.card.meta import front_matter
from perennial.training.card.parts import (
    Card,
    Facts,
    Part,
    Plot,
    Prose,
    Section,
    Table,
    Text,
    Tile,
    interval,
    number,
    span,
    words,
)

NO_README = (
    "The model's folder has no README.md, so nobody has said what this model is meant for, and what not. Do not use it "
    "for anything but what its description says, and ask its owner."
)
#: Features that the plot shows; the table has all.
_BARS = 20


def card(f: CardFacts) -> Card:
    """Lay a card out."""
    spec = f.plan.spec
    lead = spec.description or "Its spec has no description."
    return Card(
        title=f"{f.model}, version {f.version}",
        lead=lead,
        tiles=tuple(_tiles(f)),
        sections=(
            Section("Model details", tuple(_details(f))),
            Section("Intended use and limits", (Prose(f.readme) if f.readme else Text(NO_README),)),
            Section("Factors", tuple(_factors(f))),
            Section("Metrics", tuple(_metrics(f))),
            Section("Evaluation data", tuple(_evaluation_data(f))),
            Section("Training data", tuple(_training_data(f))),
            Section("Gates and verdicts", tuple(_gates(f))),
            Section("Slices", (Table(SLICES_HEADER, tuple(slice_rows(f.evaluation.audits)), 7, _NO_SLICES),)),
            Section("Fairness and ethical considerations", tuple(_fairness(f))),
            Section("Calibration", tuple(_calibration(f))),
            Section("Feature importance", tuple(_importance(f))),
            Section("Drift and monitoring", tuple(record.drift(f))),
            Section("Caveats", tuple(_caveats(f))),
            Section("Checklist before promotion", (record.checklist(f.checklist),)),
            Section("Approvals and history", tuple(record.history(f))),
            Section("Signature and stage check", tuple(record.trust(f))),
            Section("Lineage", tuple(record.lineage(f))),
        ),
        links=f.links,
        meta=front_matter(f),
    )


_NO_SLICES = "The spec names no slices (gates: {slices: [{by: ...}]}), so harm to parts of the rows was not looked for."


def _tiles(f: CardFacts) -> Iterator[Tile]:
    first = headline(f.measures)
    yield Tile(f"{_plain(first.name)} on the holdout", number(first.value), f"95 %: {interval(first.low, first.high)}")
    gate = next((r for r in f.evaluation.results if r.gate == "champion"), None)
    if gate is not None and gate.figures.get("gain") is not None:
        gain, low, high = (_float(gate.figures.get(k)) for k in ("gain", "low", "high"))
        versus = f"against version {f.evaluation.champion}"
        yield Tile(f"gain {versus}", number(gain), f"95 %: {interval(low, high)}")
    else:
        yield Tile("against the champion", "first version" if f.evaluation.champion is None else "not compared")
    yield Tile("gates", f.evaluation.verdict, f"{len(f.evaluation.results)} gates", f.evaluation.verdict)
    met = sum(i.state in ("met", "not_applicable") for i in f.checklist.items)
    state = f.checklist.verdict
    yield Tile("checklist", state.replace("_", " "), f"{met} of {len(f.checklist.items)} met or not applicable", state)


def _details(f: CardFacts) -> Iterator[Part]:
    spec = f.plan.spec
    params = {**spec.estimator.params, **(f.bundle.get("search") or {})}
    yield Facts((
        ("Model", f.model),
        ("Version", f.version),
        ("Owner", spec.owner),
        ("Task", _task(spec)),
        ("Estimator", spec.estimator.type),
        ("Parameters", params or "the estimator's defaults"),
        ("Search", f"{spec.search.trials} trials on inner time splits" if spec.search.trials else "none"),
        ("Scored by", "ONNX Runtime" if (f.bundle.get("onnx") or {}).get("on") else "scikit-learn"),
        ("Decision threshold", _threshold(f)),
        ("Trained as of", f.plan.as_of),
        ("Training ended", f.plan.train_end),
        ("MLflow run", f.run_id),
        ("License", "not stated; ask the owner"),
        ("Questions and complaints", f"to {spec.owner}"),
    ))  # fmt: skip


def _task(spec: ModelSpec) -> str:
    if spec.task.type == "binary":
        return f"binary; positive is {spec.labels.column} = {spec.task.positive}"
    return f"{spec.task.type} of {spec.labels.column}"


def _threshold(f: CardFacts) -> str:
    value = f.bundle.get("threshold")
    if value is None:
        return f"does not apply to a {f.plan.spec.task.type} task"
    return f"{number(value)} ({'the spec' if f.plan.spec.scoring.threshold is not None else 'the training base rate'})"


def _factors(f: CardFacts) -> Iterator[Part]:
    spec, columns = f.plan.spec, list(f.bundle.get("columns") or ())
    protected = [c.column for c in spec.gates.fairness.by]
    yield Facts((
        ("One row is", f"a row of {spec.entity}, named by {', '.join(f.plan.definition.key)}"),
        (f"Features ({len(columns)})", columns),
        ("Slices looked at", [s.by for s in spec.gates.slices] or "none named in the spec"),
        ("Protected columns", protected or _stance(spec)),
        ("Protected columns among the features", [c for c in protected if c in columns] or "none"),
    ))  # fmt: skip


def _stance(spec: ModelSpec) -> str:
    why = spec.gates.fairness.not_applicable
    return f"not applicable: {why}" if why else "none named in the spec"


def _metrics(f: CardFacts) -> Iterator[Part]:
    spec = f.plan.spec
    pooled = "over all rows at once" if spec.metric.within == "pooled" else "as the mean over blocks"
    yield Text(
        f"The model is judged by {_plain(spec.metric.name)}, {pooled}. Intervals are two-sided 95 %: delete-one-block "
        "jackknife with Student's t, and a variance inflated for neighbouring blocks that resemble each other."
    )
    yield Table(
        ("metric", "value", "95 % interval", "better is", "blocks", "note"),
        tuple((_plain(m.name), number(m.value), interval(m.low, m.high),
               "higher" if m.greater_is_better else "lower", m.blocks, _note(m)) for m in f.measures),
    )  # fmt: skip


def _note(m: Measure) -> str:
    return m.why_not or ("too few blocks for an interval" if m.low is None else "")


def _evaluation_data(f: CardFacts) -> Iterator[Part]:
    plan, rows = f.plan, f.rows
    yield Facts((
        ("Holdout", f"{span(plan.holdout_keys)}, later than any row that it trained on"),
        ("Partitions", f"{len(plan.holdout_keys)} used, {len(plan.holdout_missing)} missing"),
        ("Rows", rows["rows"]),
        ("Labelled", rows["labelled"]),
        ("Judged", f"{rows['judged']:,} rows in {rows['blocks']} partitions labelled to at least "
                   f"{plan.spec.labels.min_coverage:.0%}; "
                   f"{'each row' if plan.spec.rows_are_blocks else 'each of these'} counts as one observation"),
        ("Base rate" if plan.spec.task.type == "binary" else "Mean label",
         "does not apply" if plan.spec.task.type == "multiclass" else f.rate),
        ("Judged against", f"version {f.evaluation.champion}" if f.evaluation.champion else "no champion yet"),
    ))  # fmt: skip
    yield record.snapshots(f, "holdout")
    yield _left_out(plan.holdout_missing, "Nothing of the holdout is missing.")


def _training_data(f: CardFacts) -> Iterator[Part]:
    plan = f.plan
    window = "all history" if plan.window_days is None else grain_of(plan.entity).block.words(plan.window_days)
    yield Facts((
        ("Window", f"{span(plan.train_keys)} ({window})"),
        ("Partitions", f"{len(plan.train_keys)} used, {len(plan.missing)} missing"),
        ("Labelled rows", f.bundle.get("train_rows")),
        ("Feeds", {name: f"every {feed.every}, by {feed.owner}" for name, feed in sorted(plan.feeds.items())}),
        ("Labels", f"{plan.spec.labels.column} of {plan.spec.labels.feed}, known {words(plan.label_feed.delay)} after "
                   "the end of a partition"),
        ("Seen up to", "features are built from what had landed by the end of each partition; labels by their delay"),
    ))  # fmt: skip
    yield record.snapshots(f, "train")
    yield _left_out(plan.missing, "No training partition is missing.")


def _left_out(missing: Any, none: str) -> Table:
    return Table(("partition left out", "why"), tuple(missing.items()), None, none)


def _gates(f: CardFacts) -> Iterator[Part]:
    yield Text(f"Together: {f.evaluation.verdict}. {f.evaluation.reason}")
    yield Table(
        ("gate", "verdict", "mode", "why", "warnings"),
        tuple((r.gate, r.verdict, r.mode, r.reason, "; ".join(r.warnings) or "none") for r in f.evaluation.results),
        1,
        "No gate is on record.",
    )
    said = {r.gate: {k.replace("_", " "): v for k, v in r.figures.items() if v is not None}
            for r in f.evaluation.results}  # fmt: skip
    yield Table(("gate", "figures"), tuple((gate, words(v)) for gate, v in said.items() if v), None, "No figures.")


def _fairness(f: CardFacts) -> Iterator[Part]:
    spec, audits = f.plan.spec, f.evaluation.audits
    stance = spec.gates.fairness.stance
    if stance != "audited":
        said = {
            "not_applicable": f"Declared not applicable in the spec: {spec.gates.fairness.not_applicable}",
            "off": "The spec names protected columns, and switched the audit off. Nothing is known of fairness.",
            "undeclared": "The spec names no protected column, and no reason why there is none. Nothing is known of "
            "fairness.",
        }
        yield Text(said[stance])
        return
    yield Text(
        f"Each group of a protected column against the rest. A difference of more than {spec.gates.fairness.limit:g} "
        "fails, by bounds corrected for the number of comparisons. A measure says nothing about causes."
    )
    yield Table(FAIRNESS_HEADER, tuple(fairness_rows(audits)), 8, "No comparison could be made.")
    yield Table(
        ("column", "measure", "value"),
        tuple(fairlearn_rows(audits)),
        None,
        "fairlearn's measures were not computed.",
        "fairlearn's measures over all groups, shown and not gated",
    )


def _calibration(f: CardFacts) -> Iterator[Part]:
    found = f.calibration
    if found is None:
        yield Text("There is no judged row with a finite score, so nothing is known of calibration.")
        return
    task = {
        "probability": "The probability that the model gives, against how often the outcome came.",
        "confidence": "The model's confidence in the likeliest class, against how often that class came.",
        "value": "The predicted value, against the mean of the actual ones.",
    }
    what = "Expected calibration error" if found.kind != "value" else "Mean difference between the two"
    yield Text(f"{task[found.kind]} Bins hold as many rows each. {what}: {number(found.error, 3)}.")
    yield Plot(svg.calibration(found), "On the diagonal both agree. Bars are 95 % intervals, areas are rows.")
    yield Table(
        ("bin", "rows", "said", "came", "95 % interval"),
        tuple((i + 1, b.rows, number(b.said), number(b.came), interval(b.low, b.high))
              for i, b in enumerate(found.bins)),
    )  # fmt: skip


def _importance(f: CardFacts) -> Iterator[Part]:
    found = f.importance
    if found is None:
        yield Text(f"It could not be computed: {f.not_shuffled}.")
        return
    unit = "relative loss of" if found.unit == "relative" else "loss of"
    times = "once" if found.repeats == 1 else f"{found.repeats} times"
    yield Text(
        f"The {unit} {_plain(found.metric)} when the values of one feature are shuffled over {found.rows:,} of "
        f"{found.of:,} judged rows of the holdout, {times}. It says what the model leans on, not what causes the "
        "outcome; features that know the same share it."
    )
    shown = found.features[:_BARS]
    more = f" The {_BARS} largest of {len(found.features)}." if len(found.features) > _BARS else ""
    yield Plot(svg.importance(shown), f"Mean loss, and its range over repeats.{more}")
    yield Table(
        ("feature", "mean loss", "range"),
        tuple((x.name, number(x.loss, 3), _range(x)) for x in found.features),
    )


def _range(x: Feature) -> str:
    return f"{number(x.least, 2)} to {number(x.most, 2)}" if x.least == x.least else words(None)


def _caveats(f: CardFacts) -> Iterator[Part]:
    lines = list(f.evaluation.warnings)
    plan, rows = f.plan, f.rows
    if plan.missing:
        lines.append(f"{len(plan.missing)} training partitions are missing and were trained over.")
    if plan.holdout_missing:
        lines.append(f"{len(plan.holdout_missing)} partitions of the holdout are missing.")
    if rows["labelled"] > rows["judged"]:
        lines.append(
            f"{rows['labelled'] - rows['judged']:,} labelled rows were not judged: too little of their block is "
            "labelled."
        )
    if rows["rows"] > rows["labelled"]:
        lines.append(f"{rows['rows'] - rows['labelled']:,} rows of the holdout have no label.")
    if not f.readme:
        lines.append("Nobody has written down what this model is for (no README.md).")
    if f.drift.get("why_not"):
        lines.append(str(f.drift["why_not"]))
    if f.calibration is None:
        lines.append("Nothing is known of its calibration.")
    lines.append(
        "Every figure is of the holdout. An edge over another version decays: later data will be different, and "
        "monitoring looks at it."
    )
    for line in lines:
        yield Text(line)


def _plain(name: str) -> str:
    return name.removeprefix("neg_")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
