"""The assets that tie the DAGs. Names are what people read; URIs do not depend on where the lake is."""

from __future__ import annotations

from airflow.sdk import Asset


def feed(name: str) -> Asset:
    """A feed: announced, with its key, when a partition was committed."""
    return Asset(name=name, uri=f"perennial://feeds/{name}")


def landed(name: str) -> Asset:
    """Somebody outside (S3, an upstream system, REST) says that a partition's file is there."""
    return Asset(name=f"{name}.landed", uri=f"perennial://landing/{name}")


def predictions(model: str) -> Asset:
    """Published scores of a partition."""
    return Asset(name=f"{model}.predictions", uri=f"perennial://predictions/{model}")


def version(model: str) -> Asset:
    """A new version was registered."""
    return Asset(name=f"{model}.version", uri=f"perennial://models/{model}")


def retraining_requested(model: str) -> Asset:
    """Monitoring asks for retraining."""
    return Asset(name=f"{model}.retraining_requested", uri=f"perennial://requests/{model}")


def resumed(model: str) -> Asset:
    """A paused model works again; carries the partitions that are to be scored now."""
    return Asset(name=f"{model}.resumed", uri=f"perennial://resumed/{model}")


def maintenance_due() -> Asset:
    """So many commits have come since that maintenance pays; carries which feed's, and its how-manieth turn."""
    return Asset(name="perennial.maintenance_due", uri="perennial://maintenance")
