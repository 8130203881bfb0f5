"""One retraining in a process of its own: ``python -m perennial.training.refit FOLDER``.

The folder holds ``task.json`` (which bundle, and where its snapshots lie now); the outcome goes beside it, as
``result.json`` and ``scores.npy``. Nothing else is written: no MLflow, no lake, no ledger.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from perennial.errors import PerennialError

#: What a line of progress begins with; libraries print to the same pipe.
SAID = "refit: "


def main(work: Path) -> int:
    """Retrain from a bundle, and write what came out."""
    try:
        result = _refit(work)
    except PerennialError as e:
        result = {"error": str(e)}
    (work / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def _refit(work: Path) -> dict[str, Any]:
    import numpy as np

    from perennial.lake.table import Snapshot
    from perennial.training import estimators
    from perennial.training.bundle import Bundle
    from perennial.training.learn import learn
    from perennial.training.plan import TrainingPlan, pipeline_digest
    from perennial.trust.lineage import runtime

    task = json.loads((work / "task.json").read_text("utf-8"))
    bundle = Bundle(Path(task["bundle"]))
    plan = TrainingPlan.from_dict(bundle.document("plan"))
    folder = work / Path(plan.folder).name  # the model's own module is named after its folder
    folder.mkdir()
    for name, code in bundle.sources().items():
        (folder / name).write_bytes(code)
    plan = replace(plan, folder=str(folder))
    own = pipeline_digest(plan.spec, folder)
    train, holdout = (
        {k: Snapshot.from_dict(v) for k, v in task["snapshots"][part].items()} for part in ("train", "holdout")
    )
    with estimators.threads(plan.spec, folder) as threads:
        learned = learn(plan, train, holdout, lambda text: print(f"{SAID}{text}", flush=True))  # noqa: T201 - to the parent
    np.save(work / "scores.npy", learned.scores)
    return {
        "params": learned.params,
        "threads": threads,
        "runtime": runtime(learned.packages),
        "state": learned.state,
        "pipeline": own,
        # reading a snapshot takes the digest of its rows again, and refuses others
        "snapshots": {f"{p} {k}": s.sha256 for p, g in (("train", train), ("holdout", holdout)) for k, s in g.items()},
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
