"""What a version will be compared with: a sample of its training inputs, and thresholds calibrated inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial.errors import DataError
from perennial.monitoring.calibration import calibrate, logarithms
from perennial.monitoring.drift import ColumnPlan, block_distances
from perennial.specs.grains import GRAINS, Every, Grain
from perennial.specs.models import Monitoring

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: Rows kept as the reference. Evidently needs the raw rows on every look; distances hardly move beyond this.
SAMPLE = 20_000


@dataclass(frozen=True)
class Reference:
    """``document`` goes into the bundle as JSON, ``sample`` as Parquet."""

    document: dict[str, Any]
    sample: pd.DataFrame


def build_reference(
    X: pd.DataFrame, blocks: NDArray[np.str_], spec: Monitoring, seed: int, every: Every = "day"
) -> Reference:
    """Choose methods, calibrate thresholds on blocks inside the training window, and sample the reference.

    :param blocks: the block of each row (see ``training.data.Rows``); ``every``: grain of the entity feed.

    When the training window is too short to calibrate on (a fortnight, for example), the document says why, and
    monitoring alerts instead of staying silent.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(X), min(SAMPLE, len(X)), replace=False))
    sample = X.iloc[chosen].reset_index(drop=True)
    # decided on the sample, because the sample is what later windows are compared with
    plan = ColumnPlan.choose(sample)
    document: dict[str, Any] = {"plan": plan.to_dict(), "rows": len(X), "calibration": None, "why_not": None}
    unit = GRAINS[every].block
    days = unit.nominal.days  # in one block
    window = unit.whole(spec.drift.window)
    try:
        inside = block_distances(X, _numbered(blocks, unit), plan, window_days=window)
        calibration = calibrate(
            logarithms(inside.matrix),
            inside.columns,
            share=spec.drift.share,
            k=spec.rule.k,
            n=spec.rule.n,
            false_asks_per_year=spec.drift.false_asks_per_year,
            window_days=window * days,
            reference_days=inside.reference_days * days,
            seed=seed,
        )
        document["calibration"] = calibration.to_dict()
    except (DataError, ValueError) as e:
        document["why_not"] = f"drift cannot be calibrated on this training window: {e}"
    return Reference(document, sample)


def _numbered(blocks: NDArray[np.str_], unit: Grain) -> NDArray[Any]:
    """Days as they are; weeks and months by their numbers, so that neighbours have neighbouring ones."""
    if unit.every == "day":
        return blocks
    keys, at = np.unique(blocks, return_inverse=True)
    return np.array([unit.parse(str(k)) for k in keys], dtype=np.int64)[at]
