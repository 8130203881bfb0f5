"""Kills at named places. Python imports this file at its start because the chaos stack puts its folder on PYTHONPATH.

Nothing of it is in the product: when one of :data:`PLACES` is imported, the functions named there are wrapped. In a
task, a wrapped call looks for an armed strike (``$PERENNIAL_CHAOS/armed/<id>.json``) that is meant for it, claims it by
renaming the file, so that it happens once, writes down what it is about to hit, and kills -9: the task itself, the
worker that supervises it, or a component of the stack.
"""

from __future__ import annotations

import functools
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

#: Module -> name of the place -> function.
PLACES = {
    "perennial.lake.table": {"lake.commit": "PartitionedTable._write", "lake.replace": "PartitionedTable.replace"},
    "perennial.storage": {"store.put": "FileStore.put", "store.put_if_absent": "FileStore.put_if_absent"},
    "mlflow.tracking.client": {
        f"mlflow.{name}": f"MlflowClient.{name}"
        for name in (
            "create_experiment", "create_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model",
            "log_inputs", "log_batch", "set_tag", "create_registered_model", "create_model_version",
            "set_registered_model_alias", "set_terminated",
        )
    },
    # in MLflow's server: what is killed here has committed and not answered
    "mlflow.store.tracking.sqlalchemy_store": {
        f"server.{name}": f"SqlAlchemyStore.{name}"
        for name in ("create_run", "create_logged_model", "finalize_logged_model", "set_tag")
    },
    "mlflow.store.model_registry.sqlalchemy_store": {
        f"server.{name}": f"SqlAlchemyStore.{name}"
        for name in ("create_registered_model", "create_model_version", "set_registered_model_alias")
    },
}  # fmt: skip
TASKS = "perennial_airflow.operators.base"  # StepOperator.run_step says which task this process is
HERE = Path(os.environ.get("PERENNIAL_CHAOS", ""))
_task: dict = {}
_calls: dict = {}


def _entered(function):
    """Around a whole task: remember which one this is, and say so, for orphans that wait for their retry."""

    @functools.wraps(function)
    def run_step(self, step):
        ti = step.context["ti"]
        _task.update(dag=step.actor.dag_id, run=step.actor.run_id, task=step.actor.task_id, attempt=ti.try_number)
        _calls.clear()
        (HERE / "begun" / _begun(ti.try_number)).touch()
        _write(HERE / "names" / str(ti.id), _task)
        return function(self, step)

    return run_step


def _begun(attempt):
    return f"{_task['dag']}.{_task['run']}.{_task['task']}.{attempt}".replace("/", "_")


def _struck(place, function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        strike = _claim(place, args, kwargs) if _task or place.startswith("server.") else None
        if strike is None:
            return function(*args, **kwargs)
        when = strike["when"]
        if when == "before":
            _hit(strike)
        elif when == "during":
            timer = threading.Timer(strike["delay"], _hit, [strike])
            timer.start()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _end(strike, f"raised {type(error).__name__}")
            raise
        finally:
            if when == "during":
                timer.join()
        _end(strike, "returned")
        if when == "after":
            _hit(strike)
        return result

    return call


def _claim(place, args, kwargs):
    """The armed strike that this call is for, if there is one; it is ours alone from now on."""
    about = _about(place, args, kwargs)
    for path in sorted((HERE / "armed").glob("*.json")):
        try:
            strike = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if strike["place"] != place or strike["match"] not in about:
            continue
        if _task and (strike["dag"] != _task["dag"] or not _task["task"].endswith(strike["task"])):
            continue
        if _task:  # the first few runs of the DAG are let through
            (HERE / "seen" / f"{strike['id']}.{_begun(0)}").touch()
            if len(list((HERE / "seen").glob(f"{strike['id']}.*"))) <= strike["skip"]:
                continue
        _calls[path.name] = _calls.get(path.name, 0) + 1
        if _calls[path.name] < strike["nth"]:
            continue
        try:
            path.rename(HERE / "claimed" / path.name)
        except FileNotFoundError:
            continue  # another task was faster
        return {**strike, **_task, "about": about, "pid": os.getpid()}
    return None


def _about(place, args, kwargs):
    """What the call is about, in a few words."""
    if place == "store.fsync":
        return str(Path(f"/proc/self/fd/{args[0]}").readlink()).split("/home/", 1)[-1]
    if place.startswith("lake."):
        return args[0].uri.split("/lake/")[-1]
    return " ".join(str(a) for a in (*args[1:3], *kwargs.values()) if isinstance(a, str))[:200]


def _hit(strike):
    _write(HERE / "struck" / f"{strike['id']}.json", {**strike, "at": time.time()})
    victim = strike["victim"]
    if victim == "task":
        os.kill(os.getpid(), signal.SIGKILL)
    elif victim == "worker":
        worker = os.getppid()
        os.kill(worker, signal.SIGKILL)
        while os.getppid() == worker:
            time.sleep(0.01)
        deadline = time.monotonic() + strike.get("hold", 0)  # let the retry begin, and race with it
        while time.monotonic() < deadline and not (HERE / "begun" / _begun(strike["attempt"] + 1)).exists():
            time.sleep(0.1)
    else:
        known = json.loads((Path(os.environ["PERENNIAL_HOME"]) / "stack.json").read_text())["components"]
        (pid,) = [c["pid"] for c in known if c["name"] == victim]
        # a killed scheduler leaves its workers: nobody kills those for it
        (os.kill if victim == "scheduler" else os.killpg)(pid, signal.SIGKILL)


def _end(strike, how):
    """How the call ended, of a process that was not killed in it."""
    _write(HERE / "ended" / f"{strike['id']}.json", {"how": how, "at": time.time()})


def _write(path, value):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


class _Finder:
    """Finds the modules of :data:`PLACES` as others do, and wraps what they define."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in PLACES and name != TASKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            if name == TASKS:
                module.StepOperator.run_step = _entered(module.StepOperator.run_step)
            for place, qualified in PLACES.get(name, {}).items():
                owner, function = qualified.split(".")
                cls = getattr(module, owner)
                setattr(cls, function, _struck(place, getattr(cls, function)))
            if name == "perennial.storage":  # an object's bytes are on disk, and do not have their name yet
                os.fsync = _struck("store.fsync", os.fsync)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("PERENNIAL_CHAOS"):
    sys.meta_path.insert(0, _Finder)
