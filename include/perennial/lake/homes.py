"""Where everything lies in the lake (DESIGN: ``$LAKE/{feeds, features, predictions, monitoring, quarantine}``)."""

from __future__ import annotations

from perennial.lake.table import PartitionedTable
from perennial.settings import settings
from perennial.specs import FeedSpec, ModelSpec
from perennial.storage import Store, join, open_store

#: Columns of a prediction besides the entity's key; see ``perennial.scoring.predict``.
PREDICTION_KEY = ("output", "model_version")


def feed_table(feed: FeedSpec) -> PartitionedTable:
    """Validated rows of a feed."""
    return PartitionedTable(join(settings().lake, "feeds", feed.name), feed.key)


def feature_table(model: str, definition: str, key: list[str]) -> PartitionedTable:
    """Feature rows of a model under one definition (by digest); ``inputs`` says what each was built from."""
    return PartitionedTable(join(settings().lake, "features", model, definition[:16]), key, labels=("inputs",))


def prediction_table(model: ModelSpec, entity: FeedSpec) -> PartitionedTable:
    """Published scores of a model."""
    uri = join(settings().lake, "predictions", model.name)
    return PartitionedTable(uri, (*entity.key, *PREDICTION_KEY), volatile=("run", "scored_at"))


def quarantine_table() -> PartitionedTable:
    """Refused rows of all feeds, with reasons. Its partition is ``<feed>T<key>`` so that feeds never conflict."""
    return PartitionedTable(join(settings().lake, "quarantine"), ("feed", "row"))


def monitoring_store() -> Store:
    """Figures of monitoring windows, one small object each."""
    return open_store(join(settings().lake, "monitoring"))
