"""Partitions that were scored without an input that came late: on record when published so, and when put right."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.runs import Actor

DEGRADED, RESTORED = "degraded", "restored"


def record_late_inputs(
    model: str,
    key: str,
    missing: Sequence[str],
    ledger: Ledger,
    actor: Actor,
    *,
    version: str,
    as_of: str,
    digest: str,
    spec: str = "",
    fence: Fence = no_fence,
) -> Entry:
    """Write to the ledger that ``key`` was published without ``missing``; or, with none missing, that it is whole now.

    :param digest: content digest of what was published; the same publication is recorded once.
    :param spec: digest of the run's copy of the spec.
    """
    verdict = DEGRADED if missing else RESTORED
    return ledger.append(
        Entry(
            id=actor.entry_id("scoring", key, verdict, digest[:12]),
            event="scoring",
            subject=model,
            verdict=verdict,
            reason=sentence(missing),
            as_of=as_of,
            partition=key,
            version=version,
            figures={"missing": list(missing)},
            actor=actor.to_dict(),
            digests={"content": digest, **({"spec": spec} if spec else {})},
        ),
        fence=fence,
    )


def sentence(missing: Sequence[str]) -> str:
    """What happened, for the log and the ledger."""
    if missing:
        return (
            f"published without {', '.join(missing)}, which had not landed when the wait ended; rows are marked "
            "degraded, and scored again once it is announced"
        )
    return "every input is there now: scored again, and no longer degraded"
