"""Peak memory of a scoring process, from one to twenty million rows in one partition."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Result, fresh, result
from benchmarks.scoring import KEY


def run(folder: Path, *, quick: bool) -> list[Result]:
    """One process per size, each scoring, checking and publishing a partition of its own size."""
    sizes = (100_000, 500_000) if quick else (1_000_000, 5_000_000, 20_000_000)
    home = str(folder / "home")
    arm = fresh("world:make", home=home).value
    found, peaks = [], []
    for rows in sizes:
        fresh("world:give_features", home=home, key=KEY, rows=rows)
        cost = fresh("scoring:ours", home=home, arm=arm)
        if cost.value["rows"] != rows:
            raise RuntimeError(f"{cost.value['rows']} of {rows} rows were scored")
        peaks.append(cost.peak)
        size = f"{rows // 10**6}M rows"
        note = "Start and imports of the process: about 300 MB of it." if rows == sizes[-1] else ""
        limit = 600 if rows == sizes[-1] else None
        found.append(result(f"peak memory of scoring {size}", [cost.peak], unit="MB", at_most=limit, note=note))
    found.append(
        result(
            f"that peak at {sizes[-1] // 10**6}M rows / at {sizes[0] // 10**6}M", [peaks[-1] / peaks[0]], unit="x",
            against="the smallest of these partitions", at_most=1.25,
        )
    )  # fmt: skip
    return found
