"""The ledger's share of a maintenance: moves made by hand are written down, and heads are brought up to date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from perennial.lake.table import Fence, no_fence
from perennial.ledger import Ledger
from perennial.registry import heads, versions
from perennial.runs import Actor


@dataclass(frozen=True)
class Tended:
    """What was found: sentences on aliases that were moved by hand, and how many heads moved forward."""

    moved: tuple[str, ...]
    heads: int


def tend(models: Sequence[str], ledger: Ledger, actor: Actor, as_of: dt.datetime, fence: Fence = no_fence) -> Tended:
    """Reconcile every model's aliases with its chain, and keep the head of every chain in MLflow.

    :param models: names of the models that there are specs of.
    """
    moved = [
        f"{model}: {entry.reason}"
        for model in models
        for entry in versions.reconcile(model, as_of=as_of, actor=actor, ledger=ledger, fence=fence)
    ]
    forward = [subject for subject in ledger.subjects() if heads.advance(subject, ledger, fence)]
    return Tended(tuple(moved), len(forward))
