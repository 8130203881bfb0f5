"""What every DAG file shares: which specs to build for, and the arguments that all DAGs have in common.

At task time only the DAG that runs is built, so a thousand models cost a task nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow.sdk import DAG, get_parsing_context

from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.loader import SpecSet, load_live_specs, load_specs
from perennial_airflow import retries


def dag_id(spec: FeedSpec | ModelSpec, pattern: str) -> str:
    """``<prefix><name>.<pattern>``."""
    prefix = spec.dag_prefix if isinstance(spec, ModelSpec) else ""
    return f"{prefix}{spec.name}.{pattern}"


def _wanted(pattern: str) -> str | bool | None:
    """The name to build for: ``None`` for all, ``False`` for none (another file's DAG runs)."""
    running = get_parsing_context().dag_id
    if running is None:
        return None
    name, _, its_pattern = running.rpartition(".")
    return name if its_pattern == pattern else False


def _specs(pattern: str) -> SpecSet | None:
    wanted = _wanted(pattern)
    if wanted is False:
        return None
    if wanted is None:
        return load_live_specs()
    found = load_live_specs(only=str(wanted))
    # a prefix is part of the DAG's id and not of the spec's name: then read all
    return found if str(wanted) in {*found.feeds, *found.models} else load_live_specs()


def _runs(spec: FeedSpec | ModelSpec, pattern: str) -> bool:
    """Whether this spec's DAG is the running one; when DAGs are parsed, all are wanted."""
    return get_parsing_context().dag_id in (None, dag_id(spec, pattern))


def build_feeds(pattern: str, build: Callable[[FeedSpec], DAG]) -> Iterator[DAG]:
    """One DAG per feed."""
    specs = _specs(pattern)
    if specs is not None:
        for _, spec in sorted(specs.feeds.items()):
            if _runs(spec, pattern):
                yield build(spec)


def build_models(pattern: str, build: Callable[[ModelSpec, SpecSet], DAG]) -> Iterator[DAG]:
    """One DAG per model; ``build`` also gets the specs, for the feeds that the model names."""
    specs = _specs(pattern)
    if specs is not None:
        for _, spec in sorted(specs.models.items()):
            if _runs(spec, pattern):
                yield build(spec, specs)


def build_shared(dag_id: str, build: Callable[[SpecSet], DAG]) -> Iterator[DAG]:
    """A DAG that serves all feeds and models."""
    if get_parsing_context().dag_id in (None, dag_id):
        yield build(load_live_specs())


def common(spec: FeedSpec | ModelSpec, pattern: str, description: str) -> dict[str, Any]:
    """Arguments that every DAG has."""
    queue = {"queue": spec.queue} if isinstance(spec, ModelSpec) and spec.queue else {}
    return {
        "dag_id": dag_id(spec, pattern),
        "description": description,
        "catchup": False,
        "tags": sorted({*spec.tags, "perennial", pattern, spec.name}),
        "default_args": {"owner": spec.owner, **retries.arguments(spec.retries), **queue},
        "render_template_as_native_obj": True,
    }


def spec_errors() -> list[str]:
    """What is wrong with specs that do not parse, for ``dags/spec_errors.py``."""
    return [f"{e.path}:\n{e.message}" for e in load_specs().errors]


def scoring_feeds(spec: ModelSpec, specs: SpecSet) -> list[str]:
    """Feeds that are read at the same key as the entity, whose announcement therefore starts scoring.

    Feeds that land later than their period ends (labels, history) never start it. The feature file is only searched
    for the feeds' names: parsing SQL is for ``perennial check``, not for every DAG parse.
    """
    import re

    folder = specs.folder_of("model", spec.name)
    try:
        text = (folder / spec.features.path).read_text(encoding="utf-8")
    except OSError:
        text = ""  # the first task says it in a sentence
    words = set(re.findall(r"[a-z][a-z0-9_]*", text.lower()))
    on_time = [n for n, f in specs.feeds.items() if n in words and not f.delay]
    return sorted({spec.entity, *on_time})
