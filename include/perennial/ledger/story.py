"""What the ledger knows of one version: its decision and gates, its alias moves, its approvals and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perennial.ledger.entries import Entry, Ledger

#: Events that speak of a version itself, and not of what was done with it day by day.
_OF_A_VERSION = ("approval", "checklist", "rearm", "retraining_requested", "rollout", "signature", "stage")


@dataclass(frozen=True)
class Story:
    """The entries that belong to one version, oldest first in every part.

    :param mlflow_run: the run that trained it; ``None`` when the ledger does not know.
    :param decision: the last decision on it; ``None`` when nobody judged it (a version registered by hand).
    :param gates: the gates that this decision came from.
    :param moves: alias moves to it and away from it.
    :param others: approvals, stage check, signature, checklist, rollout steps, requests for its retraining.
    """

    model: str
    version: str
    mlflow_run: str | None
    decision: Entry | None
    gates: tuple[Entry, ...]
    moves: tuple[Entry, ...]
    others: tuple[Entry, ...]

    @property
    def entries(self) -> list[Entry]:
        """All of them, in the chain's order."""
        decision = (self.decision,) if self.decision else ()
        return sorted((*decision, *self.gates, *self.moves, *self.others), key=lambda e: e.seq)


def version_story(ledger: Ledger, model: str, version: str, mlflow_run: str | None = None) -> Story:
    """All entries of a version's story.

    A candidate has no version yet when it is judged; its decision is found by the MLflow run that trained it.

    :param version: the version's number.
    :param mlflow_run: the run that trained it, for a version that was never promoted; else the ledger says it.
    """
    aliases = ledger.find(model, event="alias")
    moves = [e for e in aliases if version in (e.version, e.figures.get("from"))]
    decisions = ledger.find(model, event="decision")
    run = mlflow_run or _run_of(moves, decisions, version)
    judged = [e for e in decisions if run is not None and e.figures.get("mlflow_run") == run]
    decision = judged[-1] if judged else None
    gates = [e for e in ledger.find(model, event="gate") if decision is not None and _same_act(e, decision)]
    others = ledger.find(model, events=_OF_A_VERSION, version=version)
    return Story(model, version, run, decision, tuple(gates), tuple(moves), tuple(others))


def _run_of(moves: Sequence[Entry], decisions: Sequence[Entry], version: str) -> str | None:
    for move in moves:
        if move.version == version and move.figures.get("mlflow_run"):
            return str(move.figures["mlflow_run"])
    for move in moves:  # entries before moves named the run: the DAG run that promoted it had judged it
        for e in decisions:
            same = [(e.actor.get(k), move.actor.get(k)) for k in ("dag_id", "run_id")]
            if move.version == version and e.verdict == "pass" and all(a == b and a for a, b in same):
                return str(e.figures.get("mlflow_run"))
    return None


def _same_act(gate: Entry, decision: Entry) -> bool:
    """Gates and their decision are written by one act, and their ids end with its digest."""
    return gate.id.rpartition("/")[2] == decision.id.rpartition("/")[2]
