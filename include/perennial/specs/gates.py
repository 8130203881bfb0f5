"""What a model may say about its gates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from perennial.specs.values import (
    Column,
    Columns,
    Integer,
    Mode,
    Number,
    Strict,
    Text,
    listed,
)


class FloorGate(Strict):
    """Absolute minimum for some metrics: a sanity check, not a proof."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    minimum: dict[str, Number] = Field(default={}, description="metric: minimum (or maximum, when lower is better)")


class BaselineGate(Strict):
    """Better than a simple rule?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Columns = Field(
        default=[], description="Segments whose training rate (or mean) is the baseline; empty: the overall one."
    )
    min_gain: Number | None = Field(default=None, description="Default 0.")
    confidence: Number = Field(default=0.9, gt=0.5, lt=1, description="One-sided.")


class ChampionGate(Strict):
    """Better than what serves now?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    min_gain: Number | None = Field(default=None, description="Default 0, regression 0.01 (relative).")
    confidence: Number = Field(default=0.9, gt=0.5, lt=1, description="One-sided.")
    block: Text = Field(
        default="partition",
        description="What counts as one independent observation, here and in every other rule. Years: row.",
    )


class Cut(Strict):
    """A column whose values make groups of rows: as they are, in ranges, or under names."""

    bins: list[Number] = Field(
        default=[], description="Ranges of a number: [25, 45] makes under 25, 25 to under 45, and 45 and over."
    )
    groups: dict[Text, list[Any]] = Field(
        default={}, description="Names for values, such as {women: [2], men: [1]}; the rest is called other."
    )


class ProtectedColumn(Cut):
    """A protected attribute: of the features, or only of the entity feed."""

    column: Column = Field(description="A feature, or a column of the entity feed that need not be a feature.")


class SliceGate(Cut):
    """No slice of the rows may be harmed against the champion, or fall below a floor of its own."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Column = Field(description="A feature, or a column of the entity feed.")
    minimum: dict[str, Number] = Field(
        default={}, description="metric: minimum (or maximum, when lower is better) in each slice"
    )
    max_harm: Number = Field(default=0.01, ge=0, lt=1, description="A loss of no more than this is let pass.")


FairnessMeasure = Literal["selection_rate", "false_positive_rate", "false_negative_rate"]


def _protected(value: Any) -> Any:
    values = listed(value)
    if not isinstance(values, list):
        return values
    return [{"column": v} if isinstance(v, str) else v for v in values]


class FairnessGate(Strict):
    """Each group of a protected column against the rest: differences of decision rates, with corrected bounds."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Annotated[
        list[ProtectedColumn],
        BeforeValidator(_protected, json_schema_input_type=list[str | ProtectedColumn]),
    ] = Field(default=[], description="Protected columns: of the features, or only of the entity feed.")
    measures: Annotated[
        list[FairnessMeasure], BeforeValidator(listed, json_schema_input_type=list[FairnessMeasure])
    ] = Field(
        default=["selection_rate", "false_positive_rate", "false_negative_rate"],
        min_length=1,
        description="Rates of decisions that are compared.",
    )
    limit: Number = Field(default=0.1, gt=0, lt=1, description="Largest difference from the rest that is let pass.")
    confidence: Number = Field(default=0.95, gt=0.5, lt=1, description="One-sided, for all comparisons together.")
    min_count: Integer = Field(
        default=30, ge=30, description="A rate over fewer rows than this is shown, and decides nothing."
    )
    not_applicable: Text | None = Field(
        default=None, description="Why no group of people can be treated unfairly by this model."
    )

    @property
    def stance(self) -> Literal["audited", "not_applicable", "off", "undeclared"]:
        """What the spec has to say of fairness; ``undeclared`` is nothing."""
        if self.not_applicable is not None:
            return "not_applicable"
        if not self.by:
            return "undeclared"
        return "off" if self.mode == "disabled" else "audited"


class Gates(Strict):
    """What a candidate must pass before it becomes a version."""

    floor: FloorGate = Field(default=FloorGate(), description="Absolute minimum; metrics may stand directly below it.")
    baseline: BaselineGate = Field(default=BaselineGate(), description="Better than a simple rule?")
    champion: ChampionGate = Field(default=ChampionGate(), description="Better than what serves now?")
    slices: list[SliceGate] = Field(default=[], description="No harm to parts of the rows, such as [{by: origin}].")
    fairness: FairnessGate = Field(
        default=FairnessGate(), description="Groups of people against the rest, or why there is nothing to audit."
    )

    @field_validator("floor", mode="before", json_schema_input_type=FloorGate | dict[str, float | Mode])
    @classmethod
    def _short_floor(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        minimum = {k: v for k, v in value.items() if k not in ("mode", "minimum")}
        kept = {k: v for k, v in value.items() if k in ("mode", "minimum")}
        if minimum and isinstance(kept.get("minimum", {}), dict):
            kept["minimum"] = {**kept.get("minimum", {}), **minimum}
        return kept
