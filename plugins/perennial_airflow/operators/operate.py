"""Operating a model by hand: promote, roll back, pause, resume, re-arm monitoring. One form, one click, on record."""

from __future__ import annotations

import datetime as dt
from typing import Any

from perennial.errors import UsageError
from perennial.specs import FeedSpec, ModelSpec
from perennial_airflow import assets
from perennial_airflow.operators.base import BranchStepOperator, StepOperator
from perennial_airflow.step import Step, live_specs


class OperateRequestOperator(BranchStepOperator):
    """Check what the form asks for against the registry, keep it, and branch to the action."""

    def step(self, step: Step) -> str:
        from perennial.registry import versions
        from perennial.registry.checklist import waivers

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        action, reason = step.params["action"], str(step.params.get("reason") or "").strip()
        if not reason:
            raise UsageError("say why, in the form's field 'reason': it goes into the ledger")
        aliases = versions.aliases(self.name)
        champion = aliases.get(versions.CHAMPION)
        target = step.params.get("version")
        if action in ("pause", "resume"):
            return self._keep(step, spec, specs.feed(spec.entity), str(action), None, champion, reason)
        if action == "rearm":
            target = target or champion
            if target is None:
                raise UsageError(f"{self.name} has no champion whose monitoring could be re-armed")
        elif action == "roll_back":
            moves = [e for e in step.ledger.find(self.name, event="alias") if e.version == champion]
            if not target and moves and moves[-1].verdict == "roll_back":
                raise UsageError(
                    f"{self.name} was rolled back to version {champion} already; a second roll_back would bring the "
                    "version back that was left: name the version in the form"
                )
            target = target or aliases.get(versions.PREVIOUS)
            if champion is None or target is None:
                raise UsageError(f"{self.name} has no previous version to roll back to")
        elif not target:
            raise UsageError("to promote, name the version in the form")
        if str(target) == champion and action != "rearm":
            raise UsageError(f"{self.name}: version {target} is champion already")
        versions.get(self.name, str(target))
        if action == "promote" and "stage_checked" not in waivers(spec):
            from perennial.training.stage import require_passed

            require_passed(self.name, str(target), step.ledger)
        return self._keep(step, spec, specs.feed(spec.entity), str(action), str(target), champion, reason)

    def _keep(
        self,
        step: Step,
        spec: ModelSpec,
        entity: FeedSpec,
        action: str,
        target: str | None,
        champion: str | None,
        why: str,
    ) -> str:
        """Keep the request for the task that acts."""
        from perennial.registry.pause import paused

        if action in ("pause", "resume") and (paused(step.ledger, self.name) is None) == (action == "resume"):
            raise UsageError(f"{self.name} is {'not paused' if action == 'resume' else 'paused already'}")
        as_of = _as_of(step, spec, entity)
        request = {"action": action, "target": target, "champion": champion, "reason": why, "as_of": as_of.isoformat()}
        step.state.write("request", request)
        return action


def _as_of(step: Step, spec: ModelSpec, entity: FeedSpec) -> dt.datetime:
    """The form's as_of; else the end of the newest scored key; else the run's own instant."""
    from perennial.lake.homes import prediction_table
    from perennial.specs.partitions import period

    if step.params.get("as_of"):
        return step.as_of(entity)
    scored = prediction_table(spec, entity).partitions()
    return period(entity, max(scored))[1] if scored else step.run_after


class RearmOperator(StepOperator):
    """Let monitoring ask again for a version that has asked before."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.ledger import Entry

        asked = step.state.read("request")
        step.ledger.append(
            Entry(
                id=step.actor.entry_id("rearm", asked["target"]),
                event="rearm",
                subject=self.name,
                version=asked["target"],
                verdict="rearmed",
                reason=asked["reason"],
                as_of=asked["as_of"],
                actor=step.actor.to_dict(),
            ),
            fence=step.fence,
        )
        return {"rearmed": asked["target"]}


class PauseOperator(StepOperator):
    """From here on the model's runs skip, with this reason."""

    ui_color = "#f3ecd8"

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry.pause import PAUSED, set_state

        asked = step.state.read("request")
        as_of = dt.datetime.fromisoformat(asked["as_of"])
        set_state(
            step.ledger, self.name, PAUSED, reason=asked["reason"], as_of=as_of, actor=step.actor, fence=step.fence
        )
        return {"paused": self.name}


class ResumeOperator(StepOperator):
    """Let the model's runs work again; names the partitions that were skipped, and announces them if asked to."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry.pause import RESUMED, paused, set_state, skipped

        asked = step.state.read("request")
        since = paused(step.ledger, self.name)
        if since is not None:
            keys = skipped(step.ledger, self.name, since)
            step.state.write("skipped", keys)  # before the state changes: a retry still knows them
        keys = step.state.read("skipped")
        as_of = dt.datetime.fromisoformat(asked["as_of"])
        set_state(
            step.ledger, self.name, RESUMED, reason=asked["reason"], as_of=as_of, actor=step.actor, fence=step.fence
        )
        score = bool(step.params.get("score_skipped"))
        if score and keys:
            step.context["outlet_events"][assets.resumed(self.name)].add_partitions(keys)  # type: ignore[typeddict-item]
        span = f"{len(keys)} partitions were skipped ({keys[0]} to {keys[-1]})" if keys else "no partition was skipped"
        then = "they are scored now" if score else "backfill them on the page of the score DAG"
        self.log.info("%s is resumed; %s%s", self.name, span, f": {then}: {', '.join(keys)}" if keys else "")
        return {"skipped": keys[:200], "announced": len(keys) if score else 0}


class MoveChampionOperator(StepOperator):
    """Move the champion alias as the request says. Runs in a pool of one slot.

    :param event: ``promote`` or ``roll_back``.
    """

    def __init__(self, *, event: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event = event

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry import checklist, versions
        from perennial.training.checklist import check

        asked = step.state.read("request")
        if not checklist.exempt(step.ledger, self.name, asked["target"], self.event):
            found = check(
                live_specs(self.name).model(self.name),
                versions.get(self.name, asked["target"]),
                as_of=dt.datetime.fromisoformat(asked["as_of"]),
                actor=step.actor,
                ledger=step.ledger,
                fence=step.fence,
            )
            for line in found.lines():
                self.log.info("%s", line)
        before = versions.promote(
            self.name,
            asked["target"],
            expected=asked["champion"],
            reason=asked["reason"],
            as_of=dt.datetime.fromisoformat(asked["as_of"]),
            actor=step.actor,
            ledger=step.ledger,
            fence=step.fence,
            event=self.event,
        )
        return {"champion": asked["target"], "previous": before}
