"""All that a card says about a version, gathered once from its bundle, its evaluation, the ledger and the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial.errors import DataError, RegistryError
from perennial.gates.metrics import get_metric
from perennial.lake.table import Snapshot
from perennial.ledger.story import Story
from perennial.registry.checklist import Checklist
from perennial.training import estimators
from perennial.training.bundle import Bundle
from perennial.training.card.importance import Importance, importance
from perennial.training.card.measures import Calibration, Judged, Measure, calibration, measures
from perennial.training.classes import scores_of
from perennial.training.data import Rows, load_rows
from perennial.training.evaluate import Evaluation
from perennial.training.plan import TrainingPlan


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    :param version: its number. ``bundle``: facts that training recorded. ``requirements``: packages that it needs.
    :param rows: of the holdout, by what became of them: ``rows``, ``labelled``, ``judged``, ``blocks``, ``left_out``.
    :param rate: mean label of the judged rows (binary: share of positives; multiclass: none).
    :param measures: the spec's metric first. ``not_shuffled``: why there is no feature importance.
    :param readme: the model's README.md as it was trained with; ``None``: it had none.
    :param signed: fingerprint of the key, digest, number of files.
    :param links: name and address.
    """

    model: str
    version: str
    run_id: str
    plan: TrainingPlan
    bundle: Mapping[str, Any]
    requirements: tuple[str, ...]
    snapshots: Mapping[str, Mapping[str, Mapping[str, Any]]]
    drift: Mapping[str, Any]
    readme: str | None
    evaluation: Evaluation
    rows: Mapping[str, int]
    rate: float | None
    measures: tuple[Measure, ...]
    calibration: Calibration | None
    importance: Importance | None
    not_shuffled: str | None
    story: Story
    checklist: Checklist
    fallback: str | None
    signed: tuple[str, str, int]
    links: tuple[tuple[str, str], ...] = ()


def gather(
    bundle: Bundle,
    version: str,
    run_id: str,
    evaluation: Evaluation,
    story: Story,
    checklist: Checklist,
    fallback: str | None,
    links: tuple[tuple[str, str], ...] = (),
) -> CardFacts:
    """Gather what the card of a version says. Its estimator is loaded, and scores shuffled rows of the holdout.

    :param bundle: verified. ``evaluation``: of the run that trained it. ``fallback``: the version to roll back to.
    """
    plan = TrainingPlan.from_dict(bundle.document("plan"))
    spec, frame = plan.spec, bundle.frame("holdout")
    y, blocks = frame["label"].to_numpy(dtype=np.float64), frame["partition"].to_numpy().astype(str)
    scores = scores_of(frame)
    keep = _judged(y, blocks, spec.labels.min_coverage)
    at = None if spec.rows_are_blocks else blocks[keep]
    judged = Judged(y[keep], scores[keep], at, bundle.facts["threshold"])
    wanted = {*plan.holdout_keys, *plan.holdout_missing}
    found, why = _importance(bundle, plan, keep)
    path = bundle.folder / "requirements.txt"
    return CardFacts(
        model=spec.name,
        version=version,
        run_id=run_id,
        plan=plan,
        bundle=bundle.facts,
        requirements=tuple(path.read_text("utf-8").split()) if path.is_file() else (),
        snapshots=bundle.document("snapshots"),
        drift=bundle.document("drift"),
        readme=_readme(bundle),
        evaluation=evaluation,
        rows={
            "rows": len(y),
            "labelled": int((~np.isnan(y)).sum()),
            "judged": int(keep.sum()),
            "blocks": len(np.unique(blocks[keep])),
            "partitions": len(wanted),
        },
        rate=float(y[keep].mean()) if keep.any() and spec.task.type != "multiclass" else None,
        measures=measures(spec, judged),
        calibration=calibration(spec.task.type, judged),
        importance=found,
        not_shuffled=why,
        story=story,
        checklist=checklist,
        fallback=fallback,
        signed=(bundle.signed.signer, bundle.signed.digest, len(bundle.signed.files)),
        links=links,
    )


def _judged(y: Any, blocks: Any, least: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The rows that the gates judge: labelled ones of blocks that are labelled well enough."""
    labelled = ~np.isnan(y)
    keys, at = np.unique(blocks, return_inverse=True)
    share = np.bincount(at, weights=labelled, minlength=len(keys)) / np.maximum(np.bincount(at, minlength=len(keys)), 1)
    return np.asarray(labelled & (share[at] >= least)) if len(y) else np.zeros(0, dtype=bool)


def _importance(bundle: Bundle, plan: TrainingPlan, keep: Any) -> tuple[Importance | None, str | None]:
    spec = plan.spec
    snapshots = {k: Snapshot.from_dict(v) for k, v in bundle.document("snapshots")["holdout"].items()}
    try:
        rows: Rows = load_rows(spec, plan.feeds, plan.definition, snapshots, bundle.facts.get("classes", ()))
    except DataError as e:
        return None, str(e)
    scorer = bundle.scorer
    found = importance(
        lambda X: estimators.score(scorer, X[bundle.facts["columns"]], spec.task.type),
        rows.take(keep),
        get_metric(spec.metric.name, spec.task.type),
        bundle.facts["threshold"],
        int(bundle.facts["seed"]),
    )
    return found, None if found else f"{spec.metric.name} has no value on the judged rows of the holdout"


def _readme(bundle: Bundle) -> str | None:
    try:
        text = bundle.document("readme")["text"]
    except RegistryError:  # a bundle that is older than the record
        return None
    return None if text is None else str(text)
