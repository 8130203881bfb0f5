"""The embedded stack: Airflow 3 (SQLite, LocalExecutor) and MLflow on the loopback address, in one folder.

Each component is a process group of its own (see :mod:`perennial.local.processes`). Ready means: every component says
it is healthy, tasks get an answer from the execution API, MLflow answers, the pools exist, all DAG files are parsed.

======================  ============================================================================================
``home/keys``           secrets, passwords, the key that signs versions; made on first start, for the owner's eyes only
``home/airflow``        ``AIRFLOW_HOME`` with the metadata database
``home/mlflow``         MLflow's database and the artifacts it serves
``home/logs``           one file per component; ``tasks/`` for task logs, ``parsing/`` for DAG files
``home/stack.lock``     held while a stack runs; ``home/stack.json`` says which processes it consists of
======================  ============================================================================================

Ports: Airflow listens on ``port``, MLflow on ``port + 1``. The next three are set aside in Airflow's configuration, so
that nothing of it ever points at another stack; nothing listens there, because this stack's logs are local files.
"""

from __future__ import annotations

import base64
import fcntl
import importlib.metadata
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
import psutil

from perennial.errors import ConflictError, PerennialError, UsageError
from perennial.local import processes
from perennial.local.processes import Component
from perennial.local.rest import AirflowClient, AirflowError
from perennial.settings import TELEMETRY_OFF, Settings
from perennial.trust.keys import new_pair

Progress = Callable[[str], None]

#: How long a start may take on a slow and busy machine before it counts as failed.
START_SECONDS = 420.0

_HOST = "127.0.0.1"
_OWN_FOLDER = str(Path(__file__).parents[2])  # where this package lies; the project may be another folder
_ADMIN = "admin"
_PORTS = ("Airflow", "MLflow")
_AIRFLOW: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # the logs lie on this disk: no server for them, which would listen on every address of the machine
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# Asked directly, the triggerer no longer answers its child, which may then wait ten seconds for that answer.
_CHILDREN_FIRST = frozenset({"triggerer"})
_HEALTH = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_FOUND_FILES = re.compile(rb"Found (\d+) files for bundle")


class StackError(PerennialError):
    """The embedded stack did not start, or a part of it ended."""


class Stack:
    """Airflow and MLflow, started and stopped as one.

    :param home: where all state lies (``PERENNIAL_HOME``)
    :param port: of Airflow; MLflow takes the next one
    :param project: the checkout with ``dags``, ``plugins`` and ``include``
    :param env: further environment for every component; it wins over what the stack sets
    """

    def __init__(self, home: Path, port: int, *, project: Path, env: Mapping[str, str] | None = None) -> None:
        if not 1024 <= port <= 65531:
            raise UsageError(f"PERENNIAL_PORT is {port}; it must lie between 1024 and 65531")
        self.home = home.absolute()
        self.port = port
        self.project = project.absolute()
        self.timings: dict[str, float] = {}
        self._extra = dict(env or {})
        self._marker = f"{self.home}#{secrets.token_hex(8)}"
        self._components: list[Component] = []
        self._lock: IO[str] | None = None
        self._client: AirflowClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # -- what others use -----------------------------------------------------------------------------------------------

    @property
    def urls(self) -> dict[str, str]:
        """Where ``airflow`` and ``mlflow`` can be opened."""
        return {"airflow": f"http://{_HOST}:{self.port}", "mlflow": f"http://{_HOST}:{self.port + 1}"}

    @property
    def username(self) -> str:
        """Who may do everything."""
        return _ADMIN

    @property
    def password(self) -> str:
        """The password of :attr:`username`."""
        return self.passwords[_ADMIN]

    @cached_property
    def passwords(self) -> dict[str, str]:
        """Password of every user; made on first start, kept in ``home/keys``."""
        path = self.home / "keys" / "passwords.json"
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        users = self._extra.get("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", _ADMIN)
        names = [_ADMIN, *(user.split(":")[0].strip() for user in users.split(","))]
        missing = [name for name in names if name not in known]
        if missing or not path.exists():
            known |= {name: secrets.token_urlsafe(12) for name in missing}
            _write_private(path, json.dumps(known))
        return known

    @property
    def client(self) -> AirflowClient:
        """Airflow's REST API, logged in as :attr:`username`."""
        if self._client is None:
            self._client = AirflowClient(self.urls["airflow"], self.username, self.password)
        return self._client

    @property
    def settings(self) -> Settings:
        """Perennial's settings as the stack's tasks see them."""
        return Settings.from_environment(self.environment)

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of every component, and so of every task."""
        return self._environment()

    @property
    def records(self) -> list[processes.Record]:
        """What this stack has started."""
        return [c.record for c in self._components]

    @property
    def ended(self) -> list[Component]:
        """Components that have ended by themselves."""
        return [c for c in self._components if c.exit_code is not None]

    def check(self, but: Component | None = None) -> None:
        """Raise when a component, ``but`` that one, has ended by itself."""
        for component in self._components:
            if component is not but and component.exit_code is not None:
                if "address already in use" in component.last_lines().lower():
                    self._check_ports()
                raise StackError(
                    f"The {component.name} ended with code {component.exit_code}; the end of {component.log}:\n"
                    f"{component.last_lines()}"
                )

    def mend(self) -> list[str]:
        """Start again what has ended by itself; what it left running is ended first. Returns at once, with the names.

        A killed scheduler leaves its workers and their tasks, and they would compete with those of the next one.
        """
        ended = self.ended
        for component in ended:
            processes.reap([component.record])
            self._components.remove(component)
            if component.name == "mlflow":
                self._spawn_mlflow(append=True)
            else:
                self._spawn_airflow(component.name, append=True)
        return [c.name for c in ended]

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self, progress: Progress | None = None, prepare: Callable[[], None] | None = None) -> None:
        """Start everything, and return when it is ready; on any failure nothing is left running.

        :param prepare: called when the home is ours alone and nothing runs in it yet.
        """
        say = progress or _silent
        began = time.monotonic()
        self._acquire()
        try:
            self._clear_leftovers(say)
            self._check_ports()
            if prepare is not None:
                prepare()
            self._prepare_folders()
            say("starting Airflow and MLflow")
            self._spawn_airflow("api-server")  # takes longest, and needs no table before its first request
            self._spawn_mlflow()
            with self._timed("metadata database"):
                self._migrate()
            for name in ("scheduler", "dag-processor", "triggerer"):
                self._spawn_airflow(name)
            deadline = began + START_SECONDS
            self._wait_healthy(deadline, say)
            self._set_pools()
            self._wait_parsed(deadline, say)
        except BaseException:
            self.stop()
            raise
        self.timings["start"] = time.monotonic() - began
        say(f"ready after {self.timings['start']:.0f} s")

    def _acquire(self) -> None:
        """One stack per home: the lock is the kernel's, and goes with the process that holds it."""
        if self._lock is not None:
            raise ConflictError("This stack is already started")
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "stack.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise ConflictError(
                f"A stack already runs in {self.home} ({holder}): stop it, or set PERENNIAL_HOME to another folder"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()}, {self.urls['airflow']}")
        lock.flush()
        self._lock = lock

    def _clear_leftovers(self, say: Progress) -> None:
        """End what a launcher that was killed could not end."""
        ended = processes.reap(processes.read_records(self._record_file))
        if ended:
            say(f"ended {ended} processes that an earlier stack left behind")

    def _check_ports(self) -> None:
        for offset, what in enumerate(_PORTS):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((_HOST, self.port + offset))
                except OSError:
                    raise ConflictError(
                        f"Port {self.port + offset} for {what} is taken; set PERENNIAL_PORT to another number"
                        " (Airflow takes that one, MLflow the next)"
                    ) from None

    def _prepare_folders(self) -> None:
        for name in ("airflow", "mlflow/artifacts", "logs/tasks", "landing"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "airflow").chmod(0o700)
        self._make_signing_key()
        config = self.home / "airflow" / "airflow.cfg"
        if not config.exists():  # else each component would write one, all at the same time
            config.write_text("# Everything is set in the environment: see perennial.local.stack.\n", encoding="utf-8")
        shutil.rmtree(self._parsing_logs, ignore_errors=True)  # tells which files were parsed since this start

    def _spawn(self, name: str, command: list[str], append: bool = False) -> Component:
        component = processes.spawn(
            name,
            command,
            env=self.environment,
            cwd=self.project,
            log=self.home / "logs" / f"{name}.log",
            marker=self._marker,
            children_first=name in _CHILDREN_FIRST,
            append=append,
        )
        self._components.append(component)
        processes.write_records(self._record_file, self._components)
        return component

    def _spawn_airflow(self, name: str, append: bool = False) -> None:
        self._spawn(name, [sys.executable, "-m", "airflow", *_AIRFLOW[name]], append)

    def _spawn_mlflow(self, append: bool = False) -> None:
        folder = self.home / "mlflow"
        command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(self.port + 1)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        self._spawn("mlflow", command, append)

    def _migrate(self) -> None:
        """Bring the metadata database to this Airflow; nothing to do when it is there already."""
        stamp = self.home / "airflow" / "migrated"
        version = importlib.metadata.version("apache-airflow-core")
        database = self.home / "airflow" / "airflow.db"
        if database.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == version:
            return
        component = self._spawn("migrate", [sys.executable, "-m", "airflow", "db", "migrate"])
        deadline = time.monotonic() + START_SECONDS
        while (code := component.exit_code) is None:
            self.check(but=component)
            if time.monotonic() > deadline:
                raise StackError(f"The metadata database was not ready in time; see {component.log}")
            time.sleep(0.05)
        self._components.remove(component)
        if code:
            raise StackError(
                f"'airflow db migrate' ended with code {code}; the end of {component.log}:\n{component.last_lines()}"
            )
        stamp.write_text(version, encoding="utf-8")

    def _wait_healthy(self, deadline: float, say: Progress) -> None:
        waiting = {"Airflow", *_HEALTH, "execution API", "MLflow"}
        began = time.monotonic()

        def done(what: str) -> None:
            waiting.discard(what)
            self.timings[what] = time.monotonic() - began

        with httpx.Client(trust_env=False, timeout=10) as http:
            while waiting:
                self.check()
                if time.monotonic() > deadline:
                    raise StackError(f"Not ready in time: {', '.join(sorted(waiting))}; see {self.home / 'logs'}")
                try:
                    if "MLflow" in waiting and _answers(http, self.urls["mlflow"] + "/health"):
                        done("MLflow")
                        say(f"MLflow answers at {self.urls['mlflow']}")
                    if waiting & {"Airflow", *_HEALTH}:
                        state = self.client.health()
                        if "Airflow" in waiting:
                            done("Airflow")
                            say(f"Airflow answers at {self.urls['airflow']}")
                            # builds the routes for tasks, which blocks the server for seconds: best at once
                            if self.client.execution_ready(timeout=max(1.0, deadline - time.monotonic())):
                                done("execution API")
                        for name in waiting & set(_HEALTH):
                            if state.get(name) == "healthy":
                                done(name)
                    elif "execution API" in waiting and self.client.execution_ready():
                        done("execution API")
                except httpx.HTTPError:
                    pass
                if waiting:
                    time.sleep(0.2)

    def _set_pools(self) -> None:
        path = self.project / "include" / "pools.json"
        if not path.exists():
            return
        for name, pool in json.loads(path.read_text(encoding="utf-8")).items():
            self.client.set_pool(
                name, int(pool["slots"]), pool.get("description", ""), bool(pool.get("include_deferred", False))
            )

    def _wait_parsed(self, deadline: float, say: Progress) -> None:
        """Wait until every DAG file has been parsed once and the number of DAGs stands still."""
        with self._timed("DAG files"):
            count, since = -1, time.monotonic()
            parsed = False
            while True:
                self.check()
                now = time.monotonic()
                if now > deadline:
                    raise StackError(f"The DAG files were not parsed in time; see {self._parsing_logs}")
                parsed = parsed or self._all_parsed()
                found = int(self.client.get("dags", limit=1)["total_entries"])
                if found != count or not parsed:
                    count, since = found, now
                elif now - since > 1.2:  # the dag-processor stores results once a second
                    break
                time.sleep(0.2)
        broken = self.client.import_errors()
        for error in broken:
            say(f"broken DAG file {error['filename']}: {str(error['stack_trace']).strip().splitlines()[-1]}")
        say(f"{count} DAGs")

    def _all_parsed(self) -> bool:
        """Each file found has a log of its own since this start, and no file is in work."""
        processor = next(c for c in self._components if c.name == "dag-processor")
        found = _FOUND_FILES.findall(processor.log.read_bytes())
        if not found:
            return False
        if sum(1 for _ in self._parsing_logs.glob("*/*/**/*.log")) < int(found[-1]):
            return False
        try:
            children = psutil.Process(processor.pid).children()
            return all(child.status() == psutil.STATUS_ZOMBIE for child in children)
        except psutil.Error:
            return False

    # -- stop ----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End everything that was started, and nothing else. Safe to call again, and before a start."""
        if self._lock is None:
            return
        began = time.monotonic()
        try:
            if self._client is not None:
                self._client.close()
                self._client = None
            took = processes.stop(self._components)
            self.timings |= {f"stop {name}": seconds for name, seconds in took.items()}
            self._components.clear()
            self._record_file.unlink(missing_ok=True)
        finally:
            self._lock.close()
            self._lock = None
        self.timings["stop"] = time.monotonic() - began

    # -- details -------------------------------------------------------------------------------------------------------

    @property
    def _record_file(self) -> Path:
        return self.home / "stack.json"

    @property
    def _parsing_logs(self) -> Path:
        return self.home / "logs" / "parsing"

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.timings[what] = time.monotonic() - began

    def _secret(self, name: str) -> str:
        path = self.home / "keys" / name
        if not path.exists():
            _write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        return path.read_text(encoding="utf-8")

    def _make_signing_key(self) -> None:
        """Make the pair that signs versions, unless there is one, or the environment brings its own."""
        own = Settings.from_environment({"PERENNIAL_HOME": str(self.home)})
        if self.settings.signing_conn_id or self.settings.signing_key != own.signing_key:
            return
        if not Path(own.signing_key).exists():
            new_pair(self.home / "keys")

    def _environment(self) -> dict[str, str]:
        env = dict(os.environ)
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # six processes that compile everything anew are slow
        include = str(self.project / "include")
        _ = self.passwords
        env |= TELEMETRY_OFF
        env |= {
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath))),
            "PYTHONPATH": os.pathsep.join(p for p in (include, _OWN_FOLDER, env.get("PYTHONPATH")) if p),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "NO_PROXY": ",".join(p for p in (_HOST, "localhost", env.get("NO_PROXY")) if p),
            "PERENNIAL_HOME": str(self.home),
            "PERENNIAL_PORT": str(self.port),
            "PERENNIAL_SPECS": env.get("PERENNIAL_SPECS") or include,
            "PERENNIAL_REPORTS_URL": f"{self.urls['airflow']}/perennial/reports",
            "MLFLOW_TRACKING_URI": self.urls["mlflow"],
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        env["no_proxy"] = env["NO_PROXY"]
        env |= self._airflow_settings()
        return env | self._extra

    def _airflow_settings(self) -> dict[str, str]:
        home = self.home / "airflow"
        url = self.urls["airflow"]
        sections: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.project / "dags",
                "plugins_folder": self.project / "plugins",
                "executor": "LocalExecutor",
                "parallelism": 16,
                "load_examples": False,
                "dags_are_paused_at_creation": False,
                "dagbag_import_timeout": 90,
                "min_serialized_dag_update_interval": 10,
                "execution_api_server_url": f"{url}/execution/",
                "hostname_callable": "socket.gethostname",  # no DNS
                "fernet_key": self._secret("fernet"),
                "simple_auth_manager_users": f"{_ADMIN}:admin",
                "simple_auth_manager_passwords_file": self.home / "keys" / "passwords.json",
            },
            "database": {
                "sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}",
                "check_migrations": False,  # the start does it, while the API server is still loading
                "sql_alchemy_connect_args": "perennial.local.SQLITE_CONNECT_ARGS",
            },
            "api": {
                "host": _HOST,
                "port": self.port,
                "base_url": url,
                "workers": 1,
                "secret_key": self._secret("api"),
            },
            "api_auth": {"jwt_secret": self._secret("jwt")},
            "execution_api": {"jwt_expiration_time": 3600},
            # a task's end is sometimes noticed only when the next heartbeat is due: its slot and a failure wait for it
            "workers": {"execution_api_timeout": 60, "min_heartbeat_interval": 1},
            "logging": {
                "base_log_folder": self.home / "logs" / "tasks",
                "dag_processor_child_process_log_directory": self._parsing_logs,
                "logging_level": "INFO",
                "uvicorn_logging_level": "WARNING",
                "namespace_levels": "http.access=WARNING",
                "colored_console_log": False,
                "worker_log_server_port": self.port + 2,
                "trigger_log_server_port": self.port + 3,
            },
            "scheduler": {
                "scheduler_idle_sleep_time": 0.25,
                "catchup_by_default": False,
                "trigger_timeout_check_interval": 5,
                "scheduler_health_check_threshold": 60,
                "scheduler_health_check_server_port": self.port + 4,
            },
            "triggerer": {"triggerer_health_check_threshold": 60},
            "dag_processor": {
                "refresh_interval": 10,
                "min_file_process_interval": 30,
                "dag_file_processor_timeout": 180,
                "health_check_threshold": 60,
                "print_stats_interval": 600,
            },
        }
        settings = {"AIRFLOW_HOME": str(home)}
        for section, options in sections.items():
            settings |= {f"AIRFLOW__{section.upper()}__{name.upper()}": str(v) for name, v in options.items()}
        return settings


def _answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).is_success
    except httpx.HTTPError:
        return False


def _write_private(path: Path, content: str) -> None:
    """Write a file that nobody but its owner can ever read, not even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
    temporary.replace(path)


def _silent(_message: str) -> None:
    """No progress wanted."""


__all__ = ["START_SECONDS", "AirflowError", "Progress", "Stack", "StackError"]
