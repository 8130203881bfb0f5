"""The front matter of the Markdown card: metadata as Hugging Face's model cards have them, where they fit."""

from __future__ import annotations

from typing import Any

from perennial.training.card.facts import CardFacts
from perennial.training.card.parts import span

_TASKS = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "regression": "tabular-regression",
}


def front_matter(f: CardFacts) -> dict[str, Any]:
    """``license`` is not among them: a spec does not say one."""
    spec = f.plan.spec
    task = _TASKS[spec.task.type]
    snapshot = (f.snapshots.get("holdout") or {}).get("features") or {}
    dataset: dict[str, Any] = {
        "name": f"{spec.entity} {span(f.plan.holdout_keys)}",
        "type": spec.entity,
        "split": "holdout",
    }
    if snapshot.get("sha256"):
        dataset["revision"] = snapshot["sha256"]
    metrics = [{"type": m.name, "name": m.name, "value": m.value} for m in f.measures if m.value is not None]
    return {
        "model_name": f"{f.model} version {f.version}",
        "pipeline_tag": task,
        "library_name": "sklearn",
        "tags": ["tabular", spec.task.type, *spec.tags],
        "metrics": [m.name for m in f.measures],
        "model-index": [
            {
                "name": f.model,
                "results": [
                    {"task": {"type": task, "name": spec.task.type}, "dataset": dataset, "metrics": metrics},
                ],
            }
        ],
    }
