"""What a spec says of slices and protected columns that cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from perennial.specs.gates import Cut
from perennial.specs.models import ModelSpec
from perennial.specs.source import Loc, Problem

#: What the rows without a value are called, and those that no named group has.
MISSING, OTHER = "missing", "other"


def model_rules(model: ModelSpec) -> Iterator[Problem]:
    """What cannot work, whatever the columns are."""
    seen: set[str] = set()
    for i, part in enumerate(model.gates.slices):
        place: Loc = ("gates", "slices", i)
        if part.by in seen:
            yield Problem(f'"{part.by}" is sliced twice: write one entry for a column', (*place, "by"))
        seen.add(part.by)
        yield from _cut_rules(part, place)
    yield from _fairness_rules(model)


def _fairness_rules(model: ModelSpec) -> Iterator[Problem]:
    gate, place = model.gates.fairness, ("gates", "fairness")
    if gate.not_applicable is not None and gate.by:
        message = "by names protected columns, and not_applicable says that there are none: write one of them"
        yield Problem(message, (*place, "not_applicable"))
    if gate.by and model.task.type == "regression":
        message = (
            "a regression makes no decisions whose rates could be compared: write gates.slices with a floor for each "
            "group, and here not_applicable with the reason"
        )
        yield Problem(message, (*place, "by"))
    if gate.by and model.task.type == "multiclass" and "positive" not in model.task.model_fields_set:
        message = "of several classes one is audited against all others: name it, as in task: {positive: full_time}"
        yield Problem(message, (*place, "by"))
    for i, column in enumerate(gate.by):
        if column.column in {c.column for c in gate.by[:i]}:
            yield Problem(f'"{column.column}" is named twice: write one entry for a column', (*place, "by", i))
        if column.column == model.labels.column:
            yield Problem(f'"{column.column}" is the label: a protected column is another one', (*place, "by", i))
        yield from _cut_rules(column, (*place, "by", i))
    for i, measure in enumerate(gate.measures):
        if measure in gate.measures[:i]:
            yield Problem(f"{measure} is named twice", (*place, "measures", i))


def _cut_rules(cut: Cut, place: Loc) -> Iterator[Problem]:
    if cut.bins and cut.groups:
        yield Problem("write either bins (ranges of a number) or groups (names for values)", (*place, "groups"))
    if any(a >= b for a, b in zip(cut.bins, cut.bins[1:], strict=False)):
        yield Problem(f"bins must rise, as in [25, 45, 65], and {cut.bins} do not", (*place, "bins"))
    taken: dict[str, str] = {}
    for name, values in cut.groups.items():
        if name in (MISSING, OTHER):
            message = f'"{name}" is what Perennial calls rows itself: choose another name'
            yield Problem(message, (*place, "groups", name), on_key=True)
        if not values:
            yield Problem(f'group "{name}" has no values', (*place, "groups", name))
        for value in values:
            if not isinstance(value, (str, int, float)):
                yield Problem(f"{value!r} is not one value", (*place, "groups", name))
            elif str(value) in taken:
                message = f'{value!r} is in "{taken[str(value)]}" already'
                yield Problem(message, (*place, "groups", name))
            else:
                taken[str(value)] = name
