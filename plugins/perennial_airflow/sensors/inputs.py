"""A model's inputs for a partition: all in the lake, or wait for them by name."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import period
from perennial_airflow.sensors.waiting import _WaitingOperator
from perennial_airflow.step import Step, live_specs

if TYPE_CHECKING:
    from airflow.sdk import Context


class InputsSensor(_WaitingOperator):
    """Resolve which version scores the partition, and wait until its declared inputs are all there.

    The first task of scoring: it keeps the run's copy of the spec. The wait ends ``scoring.wait`` after the partition's
    end, or after the run was asked for, whichever is later. Then the partition is scored without what other feeds have
    not brought, and marked *degraded*; without its own rows there is nothing to score. Skips while the model is paused.
    """

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.lake.homes import feed_table
        from perennial.scoring.predict import builders_of, published, resolve_arms

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        entity = specs.feed(spec.entity)
        key = step.require_key(entity)
        step.skip_if_paused(self.name, key)
        as_of = step.as_of(entity)
        override = step.params.get("version")
        arms = resolve_arms(
            spec, entity, key, as_of, step.ledger, str(override) if override else None, step.actor, step.fence
        )
        builders = builders_of(spec, arms, specs.feeds, step.actor, step.fence)
        missing = sorted({m for b in builders for m in b.missing(key)})
        if missing:
            read = {n: f for b in builders for n, f in b.feeds.items()}
            tables = [[feed_table(read[feed]).uri, k] for feed, k in (m.split(" ", 1) for m in missing)]
            deadline = max(period(entity, key)[1], step.run_after) + spec.scoring.wait
            if f"{entity.name} {key}" in missing or deadline > dt.datetime.now(dt.UTC):
                self.wait(missing, [], tables, deadline)
            self.log.warning("%s %s is scored without %s: the wait for it is over", self.name, key, ", ".join(missing))
        before = published(spec, entity, key)
        step.state.write(
            "request",
            {
                "spec": spec.model_dump(mode="json"),
                "feeds": {n: f.model_dump(mode="json") for n, f in specs.feeds.items()},
                "key": key,
                "as_of": as_of.isoformat(),
                "arms": [a.to_dict() for a in arms],
                "missing": missing,
                "was_degraded": before is not None and before.degraded,
            },
        )
        return {"key": key, "version": arms[0].version, "as_of": as_of.isoformat(), "missing": missing}

    def arrived(self, context: Context, event: dict[str, Any]) -> Any:  # noqa: ARG002 - it looks for itself
        """Look again, whether everything has come or the wait is over."""
        return self.execute(context)


def stored_model(step: Step) -> tuple[ModelSpec, dict[str, FeedSpec], dict[str, Any]]:
    """The run's own copy of the model's spec and feeds, and the whole request."""
    asked = step.state.read("request")
    feeds = {n: FeedSpec.stored(f) for n, f in asked["feeds"].items()}
    return ModelSpec.stored(asked["spec"]), feeds, asked
