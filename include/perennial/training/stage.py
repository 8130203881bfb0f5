"""The stage check: a registered candidate is loaded in a fresh process and scores, before it may serve.

It is downloaded anew, verified, and must score its golden sample bit for bit, within the latency and the memory that
its spec allows (``stage``). The verdict goes to the ledger and to the version's tags in MLflow.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.errors import StageError
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.registry import tracking, versions
from perennial.runs import Actor, RunState
from perennial.specs.models import Stage
from perennial.training.bundle import Bundle

EVENT, PASS, FAIL = "stage", "pass", "fail"
#: A version that has not scored its golden sample by then never will.
TIMEOUT = 600.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Staged:
    """What a stage check came to.

    :param reason: one sentence with the figures and their limits.
    :param figures: ``rows`` and how many of them are ``differing``; ``latency`` in seconds per 1,000 rows and
        ``memory`` in bytes, each with its limit. Without the measured ones, the version could not be loaded.
    """

    verdict: str
    reason: str
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        return self.verdict == PASS


def stage_check(version: versions.Version, actor: Actor, fence: Fence = no_fence) -> Staged:
    """Check a registered version. Writes nothing but, when it is refused, the ledger.

    :raises RefusedError: when it is not what a trusted key has signed.
    """
    with RunState(actor).scratch("stage") as work:
        cache = tracking.BundleCache(work / "bundles")
        bundle = Bundle.open(version.model, version, actor=actor, fence=fence, cache=cache)
        found = _probe(bundle.folder, work / "result.json")
        return judged(version.version, found, bundle.spec.stage)


def judged(version: str, found: dict[str, Any], budget: Stage) -> Staged:
    """The verdict on what a probe found."""
    limits = {"max_latency": budget.latency_per_1000.total_seconds(), "max_memory": budget.memory_bytes}
    if "error" in found:
        return Staged(FAIL, f"version {version} failed its stage check: {found['error']}", limits)
    rows, differing = found["rows"], found["differing"]
    slow = f"1,000 rows take {found['latency']:.3g} s (at most {limits['max_latency']:g} s)"
    big = f"{_megabytes(found['memory'])} of memory (at most {_megabytes(limits['max_memory'])})"
    wrong = []
    if differing:
        wrong.append(f"{differing} of the {rows} rows of its golden sample have another score than when it was fitted")
    if found["latency"] > limits["max_latency"]:
        wrong.append(slow)
    if found["memory"] > limits["max_memory"]:
        wrong.append(f"it takes {big}")
    if wrong:
        return Staged(FAIL, f"version {version} failed its stage check: {'; '.join(wrong)}", {**found, **limits})
    return Staged(
        PASS,
        f"version {version} scores its {rows} golden rows bit for bit in a fresh process; {slow}, {big}",
        {**found, **limits},
    )


def record(
    version: versions.Version,
    staged: Staged,
    as_of: dt.datetime,
    ledger: Ledger,
    actor: Actor,
    fence: Fence = no_fence,
) -> None:
    """Write the verdict to the ledger and to the version's tags; a retry that finds the same adds nothing."""
    before = ledger.find(version.model, event=EVENT, version=version.version)
    if not before or before[-1].verdict != staged.verdict or before[-1].actor.get("run_id") != actor.run_id:
        ledger.append(
            Entry(
                id=actor.entry_id(EVENT, version.version, str(len(before))),
                event=EVENT,
                subject=version.model,
                version=version.version,
                verdict=staged.verdict,
                reason=staged.reason,
                as_of=as_of.isoformat(),
                figures=staged.figures,
                actor=actor.to_dict(),
            ),
            fence=fence,
        )
    fence()
    for name, value in {"stage": staged.verdict, "stage.reason": staged.reason[:5000]}.items():
        tracking.client().set_model_version_tag(version.model, version.version, name, value)


def require_passed(model: str, version: str, ledger: Ledger) -> None:
    """Refuse a version that may not serve.

    :raises StageError: when its newest stage check failed, or there was none.
    """
    checks = ledger.find(model, event=EVENT, version=version)
    if not checks:
        raise StageError(
            f"{model} version {version} has had no stage check, so it may not serve: clear the task stage_check of the "
            "run that trained it"
        )
    if checks[-1].verdict != PASS:
        raise StageError(f"{model} may not be served by it: {checks[-1].reason}")


def _probe(folder: Path, result: Path) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if k != "PERENNIAL_SIGNING_KEY"}  # the version's own code runs there
    command = [sys.executable, "-P", "-m", "perennial.training.probe", str(folder), str(result)]
    try:
        done = subprocess.run(
            command, env={**kept, **dict.fromkeys(_THREADS, "1")}, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it was not loaded and scored {TIMEOUT:g} seconds after its process began"}
    try:
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    except FileNotFoundError:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return {"error": f"the fresh process that loaded it ended with {how}, perhaps for want of memory"}
    return found


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MB"
