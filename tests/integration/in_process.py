"""Runs DAGs in process (``dag.test()``): the project's own DAG files, without a scheduler."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from airflow_home import PROJECT


@dataclass
class Ran:
    """How a run ended."""

    state: str
    tasks: dict[str, str]
    events: list[tuple[str, str | None]]
    xcom: dict[str, Any]
    log: str

    def done(self, *names: str) -> bool:
        """Whether exactly these tasks, of those that could branch off, succeeded."""
        return {t for t, s in self.tasks.items() if s == "success"} >= set(names)

    def skipped(self, *names: str) -> bool:
        return all(self.tasks[n] == "skipped" for n in names)

    @property
    def said(self) -> str:
        """The last thing that the tasks' logs say as an error."""
        lines = [line for line in self.log.splitlines() if line.startswith("ERROR ")]
        return lines[-1].removeprefix("ERROR ") if lines else ""


class Airflow:
    """Runs a DAG of the project as a scheduler would, without one."""

    def __init__(self) -> None:
        from airflow.dag_processing.dagbag import DagBag

        self.bag = DagBag(str(PROJECT / "dags"), collect_dags=True)
        assert self.bag.import_errors == {}
        self.forms: dict[str, dict[str, Any]] = {name: dag.params.dump() for name, dag in self.bag.dags.items()}

    def run(
        self,
        dag_id: str,
        key: str | None = None,
        *,
        run_id: str | None = None,
        run_after: dt.datetime | None = None,
        **conf: Any,
    ) -> Ran:
        """Start a run with a key and a form, and follow it to its end."""
        from airflow.models.asset import AssetEvent
        from airflow.models.xcom import XComModel
        from airflow.serialization.definitions.dag import SerializedDAG
        from airflow.utils.session import create_session
        from airflow.utils.types import DagRunType
        from sqlalchemy import select

        real = SerializedDAG.create_dagrun

        def create(dag: Any, *args: Any, **given: Any) -> Any:
            if key is not None:
                given["partition_key"] = key
                with contextlib.suppress(ValueError):
                    given["partition_date"] = dag.timetable.resolve_partition_date(key)
            if run_id is not None:
                given |= {"run_id": run_id, "run_type": DagRunType.from_run_id(run_id)}
            return real(dag, *args, **given)

        text = io.StringIO()
        handler = logging.StreamHandler(text)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        ours = logging.getLogger("airflow.task.perennial")
        ours.addHandler(handler)
        dag = self.bag.dags[dag_id]
        conf = self.forms[dag_id] | conf  # in one process, what the last form said stays in the DAG's object
        try:
            with mock.patch.object(SerializedDAG, "create_dagrun", create):
                run = dag.test(logical_date=None, run_after=run_after, run_conf=conf)
        finally:
            ours.removeHandler(handler)
        with create_session() as session:
            events = session.scalars(
                select(AssetEvent).where(AssetEvent.source_dag_id == dag_id, AssetEvent.source_run_id == run.run_id)
            )
            found = [(e.asset.name, e.partition_key) for e in events]
            values = session.scalars(
                select(XComModel).where(
                    XComModel.dag_id == dag_id, XComModel.run_id == run.run_id, XComModel.key == "return_value"
                )
            )
            xcom = {x.task_id: XComModel.deserialize_value(x) for x in values}
            tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances(session=session)}
        return Ran(str(run.state), tasks, found, xcom, text.getvalue())


def weak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **gates: Any) -> Path:
    """Specs with a quick estimator, and other gates."""
    import yaml

    root = tmp_path / "include"
    shutil.copytree(PROJECT / "include", root, ignore=shutil.ignore_patterns("perennial", "*.egg-info"))
    path = root / "models" / "flight_delay" / "model.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["estimator"]["params"] = {"max_iter": 10}
    spec["gates"] = {"fairness": spec["gates"]["fairness"], **gates}
    path.write_text(yaml.safe_dump(spec))
    monkeypatch.setenv("PERENNIAL_SPECS", str(root))
    return root
