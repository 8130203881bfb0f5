"""A model's inputs for a partition: all in the lake, or wait for them by name."""

from __future__ import annotations

from typing import Any

from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import period
from perennial_airflow.sensors.waiting import _WaitingOperator
from perennial_airflow.step import Step, live_specs


class InputsSensor(_WaitingOperator):
    """Resolve which version scores the partition, and wait until its declared inputs are all there.

    The first task of scoring: it keeps the run's copy of the spec. Gives up ``scoring.wait`` after the partition's end,
    or after the run was asked for, whichever is later.
    """

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.lake.homes import feed_table
        from perennial.scoring.predict import builders_of, resolve_arms

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        entity = specs.feed(spec.entity)
        key = step.require_key(entity)
        as_of = step.as_of(entity)
        override = step.params.get("version")
        arms = resolve_arms(spec, entity, key, as_of, step.ledger, str(override) if override else None)
        builders = builders_of(arms, specs.feeds)
        missing = sorted({m for b in builders for m in b.missing(key)})
        if missing:
            read = {n: f for b in builders for n, f in b.feeds.items()}
            tables = [[feed_table(read[feed]).uri, k] for feed, k in (m.split(" ", 1) for m in missing)]
            self.wait(missing, [], tables, max(period(entity, key)[1], step.run_after) + spec.scoring.wait)
        step.state.write(
            "request",
            {
                "spec": spec.model_dump(mode="json"),
                "feeds": {n: f.model_dump(mode="json") for n, f in specs.feeds.items()},
                "key": key,
                "as_of": as_of.isoformat(),
                "arms": [a.to_dict() for a in arms],
            },
        )
        return {"key": key, "version": arms[0].version, "as_of": as_of.isoformat()}


def stored_model(step: Step) -> tuple[ModelSpec, dict[str, FeedSpec], dict[str, Any]]:
    """The run's own copy of the model's spec and feeds, and the whole request."""
    asked = step.state.read("request")
    feeds = {n: FeedSpec.model_validate(f) for n, f in asked["feeds"].items()}
    return ModelSpec.model_validate(asked["spec"]), feeds, asked
