"""The checklist before promotion, computed from facts: the bundle, the lake, the lock, the ledger and the registry.

:func:`look` gathers the facts of a version, :func:`judge` makes an item of each. Nothing is ticked by hand; what cannot
be found out is not met. ``registry.checklist`` holds what an item is, and stops a promotion.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perennial.errors import DataError, PerennialError
from perennial.lake.table import Fence, PartitionedTable, Snapshot, no_fence
from perennial.ledger import Entry, Ledger
from perennial.ledger.story import Story, version_story
from perennial.registry import versions
from perennial.registry.checklist import ITEMS, Checklist, Item, State, record, settle, waivers
from perennial.runs import Actor
from perennial.specs import ModelSpec
from perennial.specs.models import ChecklistItem
from perennial.specs.partitions import block_of, period
from perennial.training.bundle import Bundle
from perennial.training.plan import TrainingPlan
from perennial.trust import lineage

#: Distributions that are this project's own, and so in no lock.
_OWN = frozenset({"perennial"})


@dataclass(frozen=True)
class Facts:
    """What the items of a version's checklist follow from.

    :param digests: of the plan: commit, whether it was dirty, lock.
    :param data: for each snapshot, why it was not found again; ``None``: it was. ``rows``: rows of all of them.
    :param pinned: the lock that was trained with; ``None``: it is not here any more, or there was none.
    :param runtime: what ran the fit. ``requirements``: what the bundle needs, a line each.
    :param train_end: exclusive end of training; ``judged_from``: begin of the holdout; ``holdout``: words for it.
    :param rivals_train_end: of the champion that it was compared with; ``None``: with none. ``unseen`` blocks of the
        holdout are later than that, and the comparison was over ``compared`` of them.
    :param stance: what the spec says about fairness; ``fairness``: the gate's entry.
    :param signature: the newest entry on the signature; ``digest``: of the bundle that was verified just now.
    :param stage: the newest entry on a stage check.
    :param fallback: the version to roll back to; ``first``: there never was a champion; ``lost``: why there is none.
    """

    model: str
    version: str
    digests: Mapping[str, str]
    data: Mapping[str, str | None]
    rows: int
    pinned: Mapping[str, str] | None
    runtime: Mapping[str, Any]
    threads: Mapping[str, Any]
    seed: int | None
    requirements: tuple[str, ...]
    train_end: dt.datetime
    judged_from: dt.datetime
    holdout: str
    decision: Entry | None
    rival: str | None
    rivals_train_end: dt.datetime | None
    unseen: int
    compared: int | None
    stance: str
    not_applicable: str | None
    fairness: Entry | None
    signature: Entry | None
    digest: str
    stage: Entry | None
    fallback: str | None
    first: bool
    lost: str | None
    story: Story | None = field(default=None, compare=False)


def check(
    spec: ModelSpec,
    version: versions.Version,
    *,
    as_of: dt.datetime,
    actor: Actor,
    ledger: Ledger,
    fence: Fence = no_fence,
) -> Checklist:
    """Compute the checklist of a version and write it to the ledger.

    :param spec: whose waivers count, and whose word on fairness; the version's own spec may be older.
    """
    found = judge(look(spec, version, ledger, actor, fence), spec)
    record(found, ledger, actor, as_of.isoformat(), fence)
    return found


def judge(facts: Facts, spec: ModelSpec) -> Checklist:
    """The items that follow from the facts, with what the spec or the environment waives."""
    rules: dict[ChecklistItem, Callable[[Facts], tuple[State, str]]] = {
        "code_committed": _code,
        "data_versioned": _data,
        "dependencies_locked": _lock,
        "environment_captured": _environment,
        "unseen_data": _unseen,
        "bias_tested": _bias,
        "registered_and_signed": _signed,
        "stage_checked": _stage,
        "rollback_ready": _rollback,
    }
    items = (Item(name, *rules[name](facts)) for name in ITEMS)
    return Checklist(facts.model, facts.version, settle(items, waivers(spec)))


# --------------------------------------------------------------------------------------------------------------- items


def _code(f: Facts) -> tuple[State, str]:
    commit = f.digests.get("git_commit", "unknown")
    if commit == "unknown":
        return "not_met", "no commit is known: the model's folder is in no git repository, and none was set"
    if f.digests.get("git_dirty") != "false":
        return "not_met", f"trained from commit {commit[:12]} with changes that were not committed"
    return "met", f"commit {commit[:12]}, nothing changed beside it"


def _data(f: Facts) -> tuple[State, str]:
    lost = [why for why in f.data.values() if why is not None]
    if lost:
        return "not_met", lost[0]
    if not f.data:
        return "not_met", "the version names no snapshot of its data"
    return "met", f"{len(f.data)} snapshots, {f.rows:,} rows, read again: every sha256 answers"


def _lock(f: Facts) -> tuple[State, str]:
    sha = f.digests.get("lock_sha256", "none")
    if sha == "none":
        return "not_met", "there is no requirements.lock beside or above the model's folder, nor above Perennial's own"
    if f.pinned is None:
        return "met", f"lock {sha[:12]}, which is not here to be compared with"
    pins = {_plain(name): version for name, version in f.pinned.items()}
    ran = {n: v for n, v in f.runtime.get("libraries", {}).items() if n not in _OWN}
    odd = [f"{n} {v} ran, the lock says {pins.get(_plain(n), 'nothing')}" for n, v in ran.items()
           if pins.get(_plain(n)) != v]  # fmt: skip
    if odd:
        more = f" (and {len(odd) - 2} more)" if len(odd) > 2 else ""
        return "not_met", f"{', '.join(odd[:2])}{more}"
    return "met", f"lock {sha[:12]}; all {len(ran)} libraries of the fit ran as it pins them"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _environment(f: Facts) -> tuple[State, str]:
    lacking = [what for what in ("python", "machine", "blas", "libraries") if not f.runtime.get(what)]
    lacking += [] if f.threads else ["threads"]
    lacking += [] if f.seed is not None else ["seed"]
    loose = [line for line in f.requirements if "==" not in line]
    if lacking:
        return "not_met", f"not on record: {', '.join(lacking)}"
    if loose or not f.requirements:
        return "not_met", f"the bundle's requirements are not pinned: {', '.join(loose[:3]) or 'there are none'}"
    said = f"Python {f.runtime['python']}, {f.runtime['machine']}, {len(f.requirements)} pinned requirements"
    return "met", f"{said}, threads, seed"


def _unseen(f: Facts) -> tuple[State, str]:
    if f.decision is None:
        return "not_met", "no evaluation of this version is on record"
    if f.judged_from < f.train_end:
        return "not_met", f"the holdout {f.holdout} begins before the end of training ({f.train_end:%Y-%m-%d %H:%M})"
    said = f"holdout {f.holdout}, training ended {f.train_end:%Y-%m-%d %H:%M} UTC"
    if f.rival is None:
        return "met", f"{said}; there was no champion to compare with"
    if f.rivals_train_end is None:
        return "not_met", f"nobody knows until when version {f.rival}, which it was compared with, was trained"
    if f.rivals_train_end <= f.judged_from:
        return "met", f"{said}, that of version {f.rival} {f.rivals_train_end:%Y-%m-%d %H:%M} UTC"
    if f.compared is not None and f.compared > f.unseen:
        return "not_met", f"version {f.rival} was compared on {f.compared} blocks, and trained on all but {f.unseen}"
    return "met", f"{said}; blocks that version {f.rival} trained on were left out of the comparison"


def _bias(f: Facts) -> tuple[State, str]:
    gate = f.fairness
    if gate is not None and gate.figures.get("mode") != "disabled" and gate.verdict != "not_applicable":
        shown = f"{gate.verdict}: {gate.reason}"
        return ("met" if gate.verdict == "pass" else "not_met"), shown
    if f.stance == "not_applicable" and f.not_applicable:
        return "not_applicable", f"the spec says: {f.not_applicable}"
    if f.stance == "off":
        return "not_met", "the spec switched the fairness gate off"
    if f.stance == "audited":
        return "not_met", "the spec asks for an audit, and none is on record for this version"
    return "not_met", (
        "the spec names no protected column, and no reason why there is none: write gates: {fairness: {by: [...]}} or "
        "{fairness: {not_applicable: ...}}"
    )


def _signed(f: Facts) -> tuple[State, str]:
    if f.signature is None:
        return "not_met", "no signature of it is on record"
    if f.signature.verdict != "signed":
        return "not_met", f.signature.reason
    key, then = str(f.signature.figures.get("key")), str(f.signature.figures.get("digest"))
    if then != f.digest:
        return "not_met", f"its digest was {then[:16]} when it was registered, and is {f.digest[:16]} now"
    return "met", f"version {f.version}, key {key[:16]}, digest {then[:16]}, verified"


def _stage(f: Facts) -> tuple[State, str]:
    if f.stage is None:
        return "not_met", "no stage check of it is on record"
    return ("met" if f.stage.verdict == "pass" else "not_met"), f.stage.reason


def _rollback(f: Facts) -> tuple[State, str]:
    if f.lost is not None:
        return "not_met", f.lost
    if f.fallback is not None:
        return "met", f"version {f.fallback} stays registered, and its bundle can be loaded"
    if f.first:
        return "not_applicable", "this is the first version to serve: before it there was none"
    return "not_met", "there is no champion to go back to, though there was one: set the alias again"


# --------------------------------------------------------------------------------------------------------------- facts


def look(
    spec: ModelSpec, version: versions.Version, ledger: Ledger, actor: Actor | None = None, fence: Fence = no_fence
) -> Facts:
    """Gather the facts of a version. Its data are read again, and its bundle is opened.

    :raises RegistryError: when MLflow does not have its bundle.
    :raises RefusedError: when that is not what a trusted key has signed.
    """
    name = version.model
    bundle = Bundle.open(name, version, actor=actor, fence=fence)
    plan = TrainingPlan.from_dict(bundle.document("plan"))
    story = version_story(ledger, name, version.version, version.run_id)
    gates = {str(e.figures.get("gate")): e for e in story.gates}
    rival = story.decision.figures.get("champion") if story.decision else None
    compared = gates.get("champion")
    until = _trained_until(name, str(rival)) if rival else None
    first_key, last_key = plan.holdout_keys[0], plan.holdout_keys[-1]
    unseen = {block_of(plan.entity, k) for k in plan.holdout_keys if until and period(plan.entity, k)[0] >= until}
    blocks = compared.figures.get("n_blocks") if compared is not None and not plan.spec.rows_are_blocks else None
    data, rows = _read_again(bundle, plan)
    fallback, first, lost = _fallback(name, version, ledger, actor, fence)
    facts = bundle.facts
    return Facts(
        model=name,
        version=version.version,
        digests=plan.digests,
        data=data,
        rows=rows,
        pinned=lineage.locked(Path(plan.folder), plan.digests.get("lock_sha256", "none")),
        runtime=facts.get("runtime") or {},
        threads=facts.get("threads") or {},
        seed=facts.get("seed"),
        requirements=_requirements(bundle),
        train_end=plan.train_end,
        judged_from=period(plan.entity, first_key)[0],
        holdout=first_key if first_key == last_key else f"{first_key} to {last_key}",
        decision=story.decision,
        rival=None if rival is None else str(rival),
        rivals_train_end=until,
        unseen=len(unseen),
        compared=None if blocks is None else int(blocks),
        stance=spec.gates.fairness.stance,
        not_applicable=spec.gates.fairness.not_applicable,
        fairness=gates.get("fairness"),
        signature=_newest(story, "signature"),
        digest=bundle.signed.digest,
        stage=_newest(story, "stage"),
        fallback=fallback,
        first=first,
        lost=lost,
        story=story,
    )


def _newest(story: Story, event: str) -> Entry | None:
    return next((e for e in reversed(story.others) if e.event == event), None)


def _requirements(bundle: Bundle) -> tuple[str, ...]:
    path = bundle.folder / "requirements.txt"
    return tuple(filter(None, path.read_text("utf-8").splitlines())) if path.is_file() else ()


def _read_again(bundle: Bundle, plan: TrainingPlan) -> tuple[dict[str, str | None], int]:
    """Read every snapshot of a version, which computes its digests anew."""
    keys = {"features": plan.definition.key, "labels": plan.label_feed.key}
    found: dict[str, str | None] = {}
    rows = 0
    for part, group in bundle.document("snapshots").items():
        for kind, said in group.items():
            snapshot = Snapshot.from_dict(said)
            table = PartitionedTable(snapshot.uri, keys[kind], labels=("inputs",) if kind == "features" else ())
            try:
                rows += table.read_snapshot(snapshot).num_rows
                found[f"{part} {kind}"] = None
            except DataError as e:
                found[f"{part} {kind}"] = str(e)
    return found, rows


def _trained_until(model: str, version: str) -> dt.datetime | None:
    """The end of the training of a version, or ``None`` when it is gone."""
    try:
        found = versions.get(model, version)
        said = found.tags.get("train_end") or Bundle.open(model, found).facts["train_end"]
    except PerennialError:
        return None
    return dt.datetime.fromisoformat(said)


def _fallback(
    model: str, version: versions.Version, ledger: Ledger, actor: Actor | None, fence: Fence
) -> tuple[str | None, bool, str | None]:
    """The version to roll back to, whether there never was one, and why it cannot be loaded."""
    champion = versions.by_alias(model, versions.CHAMPION)
    if champion is not None and champion.version == version.version:  # promoted already: a task that runs once more
        champion = versions.by_alias(model, versions.PREVIOUS)
        if champion is None:
            return None, True, None
    if champion is None:
        moves = [e for e in ledger.find(model, event="alias") if e.figures.get("alias") == versions.CHAMPION]
        return None, not moves, None
    try:
        Bundle.open(model, champion, actor=actor, fence=fence)
    except PerennialError as e:
        return None, False, f"version {champion.version} cannot be loaded again: {e}"
    return champion.version, False, None
