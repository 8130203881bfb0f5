"""Which tables there are, which model or feed each belongs to, and what they take on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote

from perennial.lake.table import PartitionedTable
from perennial.settings import settings
from perennial.specs.loader import SpecSet
from perennial.storage import Store, join, open_store

LOG = "_delta_log"


@dataclass(frozen=True)
class Place:
    """A table of the lake.

    :param name: below the lake, such as ``feeds/flights`` or ``features/flight_delay/<definition>``.
    """

    name: str

    @property
    def kind(self) -> str:
        """``feeds``, ``features``, ``predictions`` or ``quarantine``."""
        return self.name.split("/", 1)[0]

    @property
    def subject(self) -> str:
        """The feed or model that it belongs to; empty for the quarantine, which all feeds share."""
        return self.name.split("/")[1] if "/" in self.name else ""

    @property
    def uri(self) -> str:
        return join(settings().lake, self.name)

    @property
    def table(self) -> PartitionedTable:
        """For looking and removing. Rows are not written through it, so it needs no key."""
        return PartitionedTable(self.uri, (), labels=("inputs",) if self.kind == "features" else ())


def places(only: Iterable[str] = ()) -> list[Place]:
    """Every table of the lake whose name matches one of the patterns (default: all)."""
    lake = open_store(settings().lake)
    found = [f"{kind}/{name}" for kind in ("feeds", "predictions") for name in lake.folders(kind)]
    found += [
        f"features/{model}/{name}" for model in lake.folders("features") for name in lake.folders(f"features/{model}")
    ]
    found += [name for name in lake.folders() if name == "quarantine"]
    patterns = list(only) or ["*"]
    return [Place(name) for name in sorted(found) if any(fnmatchcase(name, p) for p in patterns)]


def name_of(uri: str) -> str | None:
    """Name of the table that a URI speaks of, also when the lake has moved since; ``None`` when it is none of ours."""
    parts = unquote(uri).rstrip("/").split("/")
    for kind, length in (("features", 3), ("feeds", 2), ("predictions", 2), ("quarantine", 1)):
        if len(parts) >= length and parts[-length] == kind:
            return "/".join(parts[-length:])
    return None


def stored_bytes(store: Store, prefix: str) -> int:
    """Bytes below a prefix, whether the newest version needs them or not."""
    return sum(size for _, size, _ in store.sizes(prefix))


def dag_prefixes(specs: SpecSet) -> dict[str, str]:
    """Name of the feed or model by what its DAGs are called before the pattern."""
    return {n: n for n in specs.feeds} | {f"{m.dag_prefix}{n}": n for n, m in specs.models.items()}
