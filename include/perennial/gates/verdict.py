"""What a gate says, and how several gates decide together.

A gate's verdict is ``pass``, ``fail``, ``hold`` (not enough evidence) or ``not_applicable`` (there is nothing to
compare with, or nothing was asked). Any enabled fail makes fail, else any enabled hold makes hold, else pass. A gate
in ``dry_run`` is recorded and never decides. An error or a missing figure is never a pass (:func:`guarded`), and
neither is missing evidence: with no gate left that decides, the answer is ``hold``. The one exception is a spec that
switched every gate off: that passes, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast, get_args

Verdict = Literal["pass", "fail", "hold", "not_applicable"]
Figure: TypeAlias = float | int | str | None

ALL_DISABLED = "every gate is switched off in the spec: nothing was checked"


def clean(value: Any) -> Figure:
    """A figure that JSON can hold: Python's own numbers and strings; NaN and infinity become ``None``."""
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's verdict with its figures, ready for ledger and card."""

    gate: str
    verdict: Verdict
    reason: str
    figures: dict[str, Figure] = field(default_factory=dict)
    mode: str = "enabled"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"gate {self.gate}: unknown verdict {self.verdict!r}")
        object.__setattr__(self, "figures", {str(name): clean(value) for name, value in self.figures.items()})
        object.__setattr__(self, "warnings", tuple(self.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, safe for JSON (no NaN, no numpy)."""
        return {
            "gate": self.gate,
            "verdict": self.verdict,
            "reason": self.reason,
            "figures": dict(self.figures),
            "mode": self.mode,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GateResult:
        """The inverse of :meth:`to_dict`."""
        return cls(
            gate=data["gate"],
            verdict=cast(Verdict, data["verdict"]),
            reason=data["reason"],
            figures=dict(data.get("figures") or {}),
            mode=data.get("mode", "enabled"),
            warnings=tuple(data.get("warnings") or ()),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What all gates together say."""

    verdict: Verdict
    reason: str
    warnings: tuple[str, ...] = ()


def disabled(gate: str) -> GateResult:
    """The record of a gate that the spec switched off: no verdict of its own, and not missing evidence either."""
    return GateResult(gate, "not_applicable", "switched off in the spec", mode="disabled")


def decide(results: Iterable[GateResult]) -> Decision:
    """Combine gates: any enabled fail, else any enabled hold, else pass; nothing that decides is a hold."""
    results = list(results)
    warnings = tuple(f"{r.gate}: {w}" for r in results if r.mode != "disabled" for w in r.warnings)
    if results and all(r.mode == "disabled" for r in results):
        return Decision("pass", ALL_DISABLED, (ALL_DISABLED,))
    deciding = [r for r in results if r.mode == "enabled" and r.verdict != "not_applicable"]
    deciding_order: tuple[Verdict, ...] = ("fail", "hold")
    for verdict in deciding_order:
        said = [r for r in deciding if r.verdict == verdict]
        if said:
            return Decision(verdict, "; ".join(f"{r.gate}: {r.reason}" for r in said), warnings)
    if not deciding:
        return Decision("hold", "no gate that is enabled and applicable gave a verdict", warnings)
    return Decision("pass", "passed " + ", ".join(r.gate for r in deciding), warnings)


def combine(results: Iterable[GateResult]) -> Verdict:
    """The verdict of :func:`decide` alone."""
    return decide(results).verdict


def guarded(gate: str, mode: str, fn: Callable[[], GateResult], deciding: Sequence[str] = ()) -> GateResult:
    """Run a gate so that nothing which goes wrong can look like a pass.

    An exception becomes ``fail`` with one sentence. So does a pass whose deciding figures (``deciding``; by default
    every number it has) are missing, NaN or infinite.
    """
    try:
        result = fn()
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        reason = f"could not be computed: {type(error).__name__}" + (f": {said}" if said else "")
        return GateResult(gate, "fail", reason, mode=mode)
    if result.verdict == "pass":
        names = deciding or tuple(result.figures)
        missing = [name for name in names if result.figures.get(name) is None]
        if missing:
            reason = f"could not be decided: no finite figure for {', '.join(missing)}"
            return GateResult(gate, "fail", reason, result.figures, mode, result.warnings)
    if result.mode != mode:
        return GateResult(gate, result.verdict, result.reason, result.figures, mode, result.warnings)
    return result
