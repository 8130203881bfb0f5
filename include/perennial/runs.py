"""What the tasks of one run share: small JSON documents and staged files under ``$PERENNIAL_STATE/runs/<run>/``.

A run's first task stores its copy of the spec, the definitions and the plan here; later tasks use that copy, so an
edit in the middle of a run mixes nothing. Reports go to ``reports/<run>/`` beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.claims import claimed
from perennial.errors import DataError
from perennial.settings import settings
from perennial.storage import Store, join, open_store, plain, to_json


@dataclass(frozen=True)
class Actor:
    """Who acts: a task of a DAG run, or a person at the command line. Goes into ledger entries."""

    dag_id: str
    run_id: str
    task_id: str = ""
    user: str | None = None

    def entry_id(self, *event: str) -> str:
        """The id of a ledger entry: the same act has the same id, however often it is retried."""
        return "/".join((self.dag_id, self.run_id, self.task_id, *event))

    def to_dict(self) -> dict[str, Any]:
        return {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "user": self.user}


class RunState:
    """Documents of one run.

    :param actor: whose run it is; the folder is named by a readable prefix and a digest of ``dag_id/run_id``.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        whole = f"{actor.dag_id}/{actor.run_id}"
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", whole)[:80]
        self.name = f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"
        self.store: Store = open_store(settings().state)

    def key(self, name: str) -> str:
        """Key of a document in the state store."""
        return f"runs/{self.name}/{name}"

    def write(self, name: str, value: Any) -> None:
        """Store a JSON document; NaN is stored as null."""
        self.store.put(self.key(f"{name}.json"), to_json(plain(value)))

    def read(self, name: str) -> Any:
        """Read a JSON document.

        :raises DataError: when an earlier task of this run has not written it.
        """
        try:
            return json.loads(self.store.get(self.key(f"{name}.json")))
        except KeyError:
            raise DataError(
                f"run {self.actor.run_id} of {self.actor.dag_id} has no {name!r} yet: clear the run from its first task"
            ) from None

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """An empty local folder for the length of the block; the retry of a task that was killed clears it up."""
        with claimed(settings().home / "cache" / "scratch" / f"{self.name}-{name}", folder=True) as folder:
            yield folder

    def report(self, name: str, html: bytes) -> str:
        """Store a page and return where to open it: a URL when reports are served, else the URI."""
        self.store.put(f"reports/{self.name}/{name}", html)
        return self.report_url(name)

    def report_url(self, name: str) -> str:
        """Where a page of this run can be opened: a URL when reports are served, else the URI."""
        served = settings().reports_url
        return f"{served}/{self.name}/{name}" if served else join(settings().state, f"reports/{self.name}/{name}")
