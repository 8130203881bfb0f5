"""Specs: one YAML file per feed and one per model, parsed strictly into typed objects."""

from __future__ import annotations

from perennial.specs.durations import Duration
from perennial.specs.feeds import FeedSpec
from perennial.specs.loader import SpecFailure, SpecSet, digest, load_feed, load_live_specs, load_model, load_specs
from perennial.specs.models import ModelSpec

__all__ = [
    "Duration",
    "FeedSpec",
    "ModelSpec",
    "SpecFailure",
    "SpecSet",
    "digest",
    "load_feed",
    "load_live_specs",
    "load_model",
    "load_specs",
]
