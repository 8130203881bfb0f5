"""Judge a candidate on its holdout: every gate of the spec. The same code serves train and retrain."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.gates.baseline import Baseline, baseline_gate
from perennial.gates.champion import champion_gate, no_champion
from perennial.gates.floor import floor_gate
from perennial.gates.metrics import get_metric
from perennial.gates.slices import Rival
from perennial.gates.verdict import GateResult, decide
from perennial.lake.table import Fence, Snapshot, no_fence
from perennial.ledger import Entry, Ledger
from perennial.pages import page, section, table
from perennial.registry import heads, versions
from perennial.runs import Actor
from perennial.specs.partitions import block_of, grain_of, period
from perennial.storage import to_json
from perennial.training import estimators
from perennial.training.audit import audit, audit_sections
from perennial.training.bundle import Bundle
from perennial.training.classes import aligned, problem_of_holdout, scores_of
from perennial.training.data import Rows, load_rows, observed, snapshot_rows
from perennial.training.fit import Candidate
from perennial.training.plan import TrainingPlan


@dataclass(frozen=True)
class Evaluation:
    """All gates' results and what they come to.

    :param champion: the version judged against; ``None``: there is none yet.
    :param audits: tables of slices and groups, and where their columns came from (``training.audit``).
    """

    verdict: str
    reason: str
    results: tuple[GateResult, ...]
    warnings: tuple[str, ...]
    champion: str | None
    holdout: tuple[str, str]
    audits: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "results": [r.to_dict() for r in self.results],
            "warnings": list(self.warnings),
            "champion": self.champion,
            "holdout": list(self.holdout),
            "audits": dict(self.audits),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evaluation:
        return cls(
            value["verdict"],
            value["reason"],
            tuple(GateResult.from_dict(r) for r in value["results"]),
            tuple(value["warnings"]),
            value["champion"],
            (value["holdout"][0], value["holdout"][1]),
            value.get("audits", {}),
        )


def evaluate(
    plan: TrainingPlan,
    holdout: Mapping[str, Snapshot],
    candidate: Candidate,
    ledger: Ledger,
    fence: Fence = no_fence,
    actor: Actor | None = None,
) -> Evaluation:
    """Run every gate on the holdout's labelled rows.

    Blocks below the spec's label coverage are left out, and counted. The champion scores the same rows with its own
    feature definition; blocks that it trained on are left out too.
    """
    spec = plan.spec
    own = Bundle.open(spec.name, candidate, actor=actor, fence=fence)
    rows = load_rows(spec, plan.feeds, plan.definition, holdout, own.facts.get("classes", ()))
    frame = own.frame("holdout")
    if len(frame) != len(rows.y) or not np.array_equal(frame["partition"].to_numpy().astype(str), rows.blocks):
        raise DataError(f"{spec.name}: the holdout of run {candidate.run_id} is not the one that was scored")
    scores = scores_of(frame)
    champion = versions.by_alias(spec.name, versions.CHAMPION)
    covered = {k for k, share in rows.coverage().items() if share >= spec.labels.min_coverage}
    keep = np.isin(rows.blocks, sorted(covered)) & ~np.isnan(rows.y)
    keys = sorted({*plan.holdout_keys, *plan.holdout_missing})
    wanted = {block_of(plan.entity, k) for k in keys}
    metric = get_metric(spec.metric.name, spec.task.type)
    within = spec.metric.within
    threshold = own.facts["threshold"]
    blocks, left_out = observed(spec, rows.blocks[keep], len(wanted) - len(covered))
    floor_and_baseline = [
        floor_gate(
            rows.y[keep], scores[keep], blocks, spec=spec.gates.floor, task_type=spec.task.type,
            threshold=threshold, within=within, left_out=left_out,
        ),
        baseline_gate(
            rows.y[keep],
            scores[keep],
            Baseline.from_dict(own.document("baseline")).predict(rows.X[keep]),
            blocks,
            spec=spec.gates.baseline,
            metric=metric,
            within=within,
            min_gain=spec.min_gain("baseline"),
            threshold=threshold,
            left_out=left_out,
            first_version=champion is None,
        ),
    ]  # fmt: skip
    judged, rival = no_champion(spec.gates.champion.mode), None
    compared = [spec.gates.champion.mode, *(s.mode for s in spec.gates.slices)]
    if champion is not None and any(mode != "disabled" for mode in compared):
        other = _contender(plan, rows, keep, covered, keys, champion, fence, actor)
        rival = None if other.scores is None else Rival(other.scores, other.mask, other.threshold)
        if spec.gates.champion.mode != "disabled":
            judged = _against(plan, rows, scores, keys, champion, other, threshold, ledger, candidate, fence, actor)
    audited = audit(plan, holdout, rows, scores, keep, threshold, len(wanted) - len(covered), rival, rows.classes)
    problem = problem_of_holdout(rows.y[keep], rows.classes)
    results = [r if problem is None else _held(r, problem) for r in (*floor_and_baseline, judged, *audited.results)]
    decision = decide(results)
    return Evaluation(
        decision.verdict,
        decision.reason,
        tuple(results),
        tuple(decision.warnings),
        champion.version if champion else None,
        (keys[0], keys[-1]),
        audited.document,
    )


def _held(result: GateResult, problem: str) -> GateResult:
    """What cannot be judged holds, and the sentence names the class, which a gate does not know."""
    if result.verdict == "not_applicable":
        return result
    return replace(result, verdict="hold", reason=problem)


@dataclass(frozen=True)
class _Contender:
    """The champion on the holdout.

    :param scores: None when it knows a class that the candidate does not, so that they cannot be compared.
    :param mask: rows that it may be compared on: labelled ones of blocks that it did not train on.
    :param left_out: blocks that it did not train on, and that are not among these rows.
    """

    scores: NDArray[np.float64] | None
    mask: NDArray[np.bool_]
    left_out: int
    threshold: float | None
    classes: tuple[str, ...]


def _contender(
    plan: TrainingPlan,
    rows: Rows,
    keep: NDArray[np.bool_],
    covered: set[str],
    keys: Sequence[str],
    champion: versions.Version,
    fence: Fence,
    actor: Actor | None,
) -> _Contender:
    other = Bundle.open(plan.spec.name, champion, actor=actor, fence=fence)
    seen_until = dt.datetime.fromisoformat(other.facts["train_end"])
    seen = {block_of(plan.entity, k) for k in keys if period(plan.entity, k)[0] < seen_until}
    unseen = {block_of(plan.entity, k) for k in keys} - seen
    judged = unseen & covered
    mask = keep & np.isin(rows.blocks, sorted(judged))
    theirs = champion_scores(other, plan, sorted(set(plan.holdout_keys)), rows, fence)
    return _Contender(
        theirs, mask, len(unseen) - len(judged), other.facts["threshold"], tuple(other.facts.get("classes", ()))
    )


def _against(
    plan: TrainingPlan,
    rows: Rows,
    scores: NDArray[np.float64],
    keys: Sequence[str],
    champion: versions.Version,
    other: _Contender,
    threshold: float | None,
    ledger: Ledger,
    candidate: Candidate,
    fence: Fence,
    actor: Actor | None,
) -> GateResult:
    """The champion gate. What it needs is read first: an outage is worth a retry, and is no verdict."""
    spec, mask = plan.spec, other.mask
    order = claim_holdout(ledger, plan, champion.version, keys[0], keys[-1], candidate.run_id, actor, fence)
    if other.scores is None:
        known, ours = ", ".join(other.classes), ", ".join(rows.classes)
        reason = f"version {champion.version} knows the classes {known}, this candidate only {ours}"
        return GateResult("champion", "hold", reason, mode=spec.gates.champion.mode)
    blocks, left_out = observed(spec, rows.blocks[mask], other.left_out)
    return champion_gate(
        rows.y[mask],
        scores[mask],
        other.scores[mask],
        blocks,
        spec=spec.gates.champion,
        metric=get_metric(spec.metric.name, spec.task.type),
        within=spec.metric.within,
        min_gain=spec.min_gain("champion"),
        judged_before=order,
        left_out=left_out,
        threshold_new=threshold,
        threshold_old=other.threshold,
        classes=rows.classes,
    )


def champion_scores(
    other: Bundle, plan: TrainingPlan, keys: Sequence[str], rows: Rows, fence: Fence
) -> NDArray[np.float64] | None:
    """The champion's scores of the holdout's rows, from its own feature definition.

    None when it knows a class that the candidate does not: a holdout cannot compare the two then.
    """
    if other.definition.digest == plan.definition.digest:
        X = rows.X[other.facts["columns"]]
    else:
        other.builder(plan.feeds).ensure(keys, fence=fence)
        again = load_rows(
            plan.spec,
            plan.feeds,
            other.definition,
            snapshot_rows(plan.spec, plan.feeds, other.definition, keys),
            rows.classes,
        )
        if not np.array_equal(again.blocks, rows.blocks):
            raise DataError(
                f"{plan.spec.name}: the champion's features cover other rows of the holdout than the candidate's"
            )
        X = again.X[other.facts["columns"]]
    scores = estimators.score(other.model, X, plan.spec.task.type)
    return aligned(scores, other.facts["classes"], rows.classes) if rows.classes else scores


def claim_holdout(
    ledger: Ledger,
    plan: TrainingPlan,
    champion: str,
    first: str,
    last: str,
    run_id: str,
    actor: Actor | None = None,
    fence: Fence = no_fence,
) -> int:
    """Take this candidate's place among those judged against ``champion`` on a holdout that overlaps its own.

    The place is an entry of the ledger, written before anything is computed: of two candidates that are judged in the
    same second one comes first, and a cleared run keeps its place.

    :param first: first partition of the holdout; ``last``: its last. ``run_id``: the candidate's MLflow run.
    :returns: how many other candidates came before.
    """
    ledger.append(
        Entry(
            id=f"judging/{champion}/{run_id}",
            event="judging",
            subject=plan.spec.name,
            version=champion,
            verdict="claimed",
            reason=f"a candidate is judged against version {champion} on {first} to {last}",
            as_of=plan.as_of.isoformat(),
            figures={"champion": champion, "holdout": [first, last], "mlflow_run": run_id},
            actor=actor.to_dict() if actor else {},
            digests=dict(plan.digests),
        ),
        fence=fence,
    )
    return judged_before(ledger, plan.spec.name, champion, first, last, run_id)


def judged_before(ledger: Ledger, model: str, champion: str, first: str, last: str, run_id: str) -> int:
    """Candidates whose place among those judged against ``champion`` on an overlapping holdout is before this one's.

    :param run_id: the candidate's MLflow run; one without a place would come last.
    """
    before: set[str] = set()
    for e in ledger.find(model, event="judging", version=champion):
        if e.figures["mlflow_run"] == run_id:
            break
        span = e.figures["holdout"]
        if span[0] <= last and span[1] >= first:
            before.add(e.figures["mlflow_run"])
    return len(before)


def record(
    plan: TrainingPlan,
    evaluation: Evaluation,
    candidate: Candidate,
    ledger: Ledger,
    actor: Actor,
    fence: Fence = no_fence,
    data: Mapping[str, Snapshot] | None = None,
) -> None:
    """Write every gate's verdict and the decision to the ledger.

    A retry adds nothing; a run that was cleared and came to something else says so beside its first decision.

    :param data: the snapshots that it was trained and judged on, by name; their digests go with the verdicts.
    """
    act = hashlib.sha256(to_json([candidate.to_dict(), evaluation.to_dict()])).hexdigest()[:12]
    common: dict[str, Any] = {
        "subject": plan.spec.name,
        "as_of": plan.as_of.isoformat(),
        "actor": actor.to_dict(),
        "digests": {**plan.digests, **{f"data:{name}": s.sha256 for name, s in (data or {}).items()}},
    }
    for r in evaluation.results:
        ledger.append(
            Entry(
                id=actor.entry_id("gate", r.gate, act),
                event="gate",
                verdict=r.verdict,
                reason=r.reason,
                figures={
                    **r.figures,
                    "gate": r.gate,
                    "mode": r.mode,
                    "warnings": list(r.warnings),
                    "mlflow_run": candidate.run_id,
                },
                **common,
            ),
            fence=fence,
        )
    figures = {
        "champion": evaluation.champion,
        "holdout": list(evaluation.holdout),
        "window_days": plan.window_days,
        "train_partitions": len(plan.train_keys),
        "missing": len(plan.missing),
        "mlflow_run": candidate.run_id,
        "warnings": list(evaluation.warnings),
        "dry_run": plan.dry_run,
    }
    ledger.append(
        Entry(
            id=actor.entry_id("decision", act),
            event="decision",
            verdict=evaluation.verdict,
            reason=evaluation.reason,
            figures=figures,
            **common,
        ),
        fence=fence,
    )
    heads.advance(plan.spec.name, ledger, fence)


def report(plan: TrainingPlan, evaluation: Evaluation) -> bytes:
    """The page that shows a decision."""
    rows = [(r.gate, r.verdict, r.mode, r.reason, "; ".join(r.warnings)) for r in evaluation.results]
    parts = [section("Gates", table(("gate", "verdict", "mode", "why", "warnings"), rows, state=1))]
    parts += audit_sections(evaluation.audits)
    for r in evaluation.results:
        shown = [(k, v) for k, v in r.figures.items() if v is not None]
        if shown:
            parts.append(section(f"Figures of {r.gate}", table(("figure", "value"), shown)))
    window = "all history" if plan.window_days is None else grain_of(plan.entity).block.words(plan.window_days)
    against = f"version {evaluation.champion}" if evaluation.champion else "no champion yet"
    lead = (
        f"{evaluation.verdict}: trained on {len(plan.train_keys)} partitions ({window}), judged on "
        f"{evaluation.holdout[0]} to {evaluation.holdout[1]} against {against}, as of {plan.as_of:%Y-%m-%d %H:%M} UTC"
    )
    return page(f"Decision on {plan.spec.name}", lead, *parts)
