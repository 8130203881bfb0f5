"""What can be said of a registered version's trust: who signed it, and whether it still is what was signed."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perennial.errors import RefusedError
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.registry import tracking, versions
from perennial.runs import Actor
from perennial.training.bundle import Bundle, record_refusal
from perennial.training.fit import STATE_TAG
from perennial.trust import signing


@dataclass(frozen=True)
class Attestation:
    """A version's trust, as a card or a checklist shows it.

    :param signer: fingerprint of the key that signed it; ``None`` when it is refused, and ``refused`` says why.
    :param digest: sha256 over the digests of its files. ``files``: how many there are.
    :param stage: ``pass`` or ``fail``, by the newest stage check in the ledger; ``None``: there was none.
    :param stage_figures: latency, memory and rows of that check, with their limits.
    """

    model: str
    version: str
    signer: str | None
    digest: str | None
    files: int
    refused: str | None
    stage: str | None
    stage_reason: str | None
    stage_figures: dict[str, Any]

    @property
    def signed(self) -> bool:
        """Whether it is what a trusted key has signed."""
        return self.refused is None

    def to_dict(self) -> dict[str, Any]:
        return {"signed": self.signed, **asdict(self)}


def attest(model: str, version: str) -> Attestation:
    """Download a version afresh, verify it, and look up what the ledger says of it.

    :param version: its number, or an alias.
    :raises UsageError: when there is no such version.
    :raises SignatureError: when no key is trusted at all.
    """
    found, ledger = versions.named(model, version), Ledger()
    signer, digest, files, refused = None, None, 0, None
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        try:
            signed = Bundle.open(model, found, cache=tracking.BundleCache(Path(folder))).signed
            signer, digest, files = signed.signer, signed.digest, len(signed.files)
        except RefusedError as e:
            refused = str(e)
    registered = ledger.find(model, event="signature", version=found.version, verdict="signed")
    if digest is not None and any(e.figures["digest"] != digest for e in registered):
        then = str(registered[-1].figures["digest"])
        refused = (
            f"{model} version {found.version} is refused: it was signed anew since it was registered: the ledger says "
            f"that its digest was {then[:16]}, and it is {digest[:16]} now"
        )
        record_refusal(model, found.version, found, refused, None, no_fence)
        signer, digest = None, None
    checks = ledger.find(model, event="stage", version=found.version)
    last = checks[-1] if checks else None
    return Attestation(
        model=model,
        version=found.version,
        signer=signer,
        digest=digest,
        files=files,
        refused=refused,
        stage=last.verdict if last else None,
        stage_reason=last.reason if last else None,
        stage_figures=dict(last.figures) if last else {},
    )


def trust_tags(bundle: Bundle) -> dict[str, str]:
    """What a version's tags in MLflow say of its signature and of its fitted state."""
    return {**signing.tags(bundle.signed), STATE_TAG: str(bundle.facts["state_sha256"])}


def record_signature(
    version: versions.Version, bundle: Bundle, as_of: dt.datetime, ledger: Ledger, actor: Actor, fence: Fence = no_fence
) -> None:
    """Write to the ledger which bundle, signed by whom, became a version."""
    signed = bundle.signed
    ledger.append(
        Entry(
            id=actor.entry_id("signature", version.version),
            event="signature",
            subject=version.model,
            version=version.version,
            verdict="signed",
            reason=f"version {version.version} is signed with the key {signed.signer[:16]}",
            as_of=as_of.isoformat(),
            figures={
                "key": signed.signer,
                "digest": signed.digest,
                "files": len(signed.files),
                "mlflow_run": version.run_id,
            },
            actor=actor.to_dict(),
        ),
        fence=fence,
    )
