"""Signing and verifying a real version's folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import world
from benchmarks.harness import Result, fresh, result


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Sign and verify the bundle of a trained version again and again, in one process, as warm tasks do."""
    home = str(folder / "home")
    arm = fresh("world:make", home=home).value
    found: dict[str, Any] = fresh(
        "signing:times", home=home, model_id=arm["model_id"], run_id=arm["run_id"], n=5 if quick else 100
    ).value
    size = f"{found['files']} files, {found['bytes'] / 2**20:.1f} MB"
    return [
        result(
            "sign a version",
            found["sign"],
            unit="ms",
            at_most=50,
            note=f"{size}; its own verification after it included. Libraries imported.",
        ),
        result("verify a version", found["verify"], unit="ms", at_most=50, note=size),
        result(
            "import of what signs and verifies",
            [found["import"]],
            unit="ms",
            note="Once per process; workers have it from before their fork.",
        ),
    ]


def times(home: str, model_id: str, run_id: str, n: int) -> dict[str, Any]:
    """Milliseconds of ``n`` signatures and verifications; a job for ``harness.fresh``."""
    world.enter(home)
    from perennial.registry import tracking
    from perennial.training.bundle import Bundle
    from perennial.training.fit import Candidate
    from perennial.trust import signing

    fetched = tracking.cache_folder().fetch(model_id)
    began = time.perf_counter()
    import model_signing.signing
    import model_signing.verifying  # noqa: F401

    imported = time.perf_counter() - began
    copy = Path(home) / "copy"
    shutil.copytree(fetched, copy)
    (copy / signing.SIGNATURE).unlink()
    signing.sign(copy)
    signed, verified = [], []
    for _ in range(n):
        began = time.perf_counter()
        signing.sign(copy)
        signed.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        Bundle.open(world.MODEL, Candidate(run_id, model_id))
        verified.append(1000 * (time.perf_counter() - began))
    files = [p for p in copy.rglob("*") if p.is_file()]
    return {
        "sign": signed,
        "verify": verified,
        "import": 1000 * imported,
        "files": len(files),
        "bytes": sum(p.stat().st_size for p in files),
    }
