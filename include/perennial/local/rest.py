"""A small client for Airflow's REST API, as the demo, the tests and people's scripts need it.

It logs in by itself, renews its token, and tries again where Airflow says "not now": a restarting server, a locked
SQLite file, a backfill that is finished but not swept up yet. Every error is one sentence with Airflow's own detail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from perennial.errors import PerennialError, UsageError

Json = dict[str, Any]

FINAL_STATES = frozenset({"success", "failed"})
_RETRY_STATUS = frozenset({502, 503, 504})
_PAGE = 100


class AirflowError(PerennialError):
    """Airflow refused a request, or could not be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """Talks to one Airflow.

    :param base_url: such as ``http://127.0.0.1:8080``
    :param retry_for: seconds to go on trying while Airflow cannot be reached or says 503
    """

    def __init__(
        self, base_url: str, username: str, password: str, *, timeout: float = 60.0, retry_for: float = 60.0
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._username = username
        self._password = password
        self._retry_for = retry_for
        self._token: str | None = None
        # trust_env=False: a proxy in the environment must not stand between us and the loopback address
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, trust_env=not _is_local(self.base_url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    # -- the plain request ---------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        retry_status: frozenset[int] = _RETRY_STATUS,
        retry_for: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request to ``/api/v2`` plus ``path``; return its successful response.

        Retried: failures to connect, the statuses in ``retry_status``, once a login that has run out, and for GET any
        broken connection.
        """
        patience = self._retry_for if retry_for is None else retry_for
        deadline = time.monotonic() + patience
        delay = 0.25
        renewed = False
        while True:
            problem: str
            status: int | None = None
            try:
                response = self._http.request(
                    method,
                    "/api/v2/" + path.lstrip("/"),
                    json=json,
                    params=params,
                    headers={"Authorization": f"Bearer {self._login()}", **(headers or {})},
                )
                if response.is_success:
                    return response
                status = response.status_code
                problem = _detail(response)
                if status == 401 and not renewed:
                    renewed, self._token = True, None
                    continue
                retry = status in retry_status
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
                retry = method == "GET" or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if not retry or time.monotonic() + delay > deadline:
                answer = f"answered {status}" if status else "could not be reached"
                raise AirflowError(f"Airflow {answer} to {method} {path}: {problem}", status)
            time.sleep(delay)
            delay = min(delay * 1.7, 3.0)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at a path; parameters that are None are left out."""
        return self.request("GET", path, params={k: v for k, v in params.items() if v is not None}).json()

    def pages(self, path: str, key: str, **params: Any) -> Iterator[Json]:
        """All entries of a listing, page by page."""
        offset = 0
        while True:
            page = self.get(path, limit=_PAGE, offset=offset, **params)
            entries = page[key]
            yield from entries
            offset += len(entries)
            if not entries or offset >= page["total_entries"]:
                return

    def _login(self) -> str:
        if self._token is None:
            response = self._http.post("/auth/token", json={"username": self._username, "password": self._password})
            if response.status_code == 401:
                raise AirflowError(f"Airflow refused the login of {self._username!r}: {_detail(response)}", 401)
            if not response.is_success:
                raise httpx.ConnectError(f"login answered {response.status_code}: {_detail(response)}")
            self._token = str(response.json()["access_token"])
        return self._token

    # -- health --------------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, str]:
        """State of each component (``metadatabase``, ``scheduler``, ...): ``healthy``, ``unhealthy`` or ``unknown``."""
        response = self._http.get("/api/v2/monitor/health", timeout=10)
        response.raise_for_status()
        return {name: (part or {}).get("status") or "unknown" for name, part in response.json().items()}

    def execution_ready(self, timeout: float = 60.0) -> bool:
        """Whether tasks will get an answer. The first call builds the routes, and blocks the server for seconds."""
        return self._http.get("/execution/health", timeout=timeout).is_success

    # -- DAGs ----------------------------------------------------------------------------------------------------------

    def dags(self, **filters: Any) -> list[Json]:
        """All active DAGs."""
        return list(self.pages("dags", "dags", **filters))

    def dag(self, dag_id: str) -> Json:
        """One DAG."""
        found: Json = self.get(f"dags/{_q(dag_id)}")
        return found

    def import_errors(self) -> list[Json]:
        """DAG files that could not be imported: ``filename``, ``stack_trace``."""
        return list(self.pages("importErrors", "import_errors"))

    # -- runs ----------------------------------------------------------------------------------------------------------

    def trigger(
        self,
        dag_id: str,
        *,
        conf: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        run_id: str | None = None,
    ) -> Json:
        """Start a run, and return it."""
        body: Json = {"logical_date": None, "conf": dict(conf or {})}
        if partition_key is not None:
            body["partition_key"] = partition_key
        if run_id is not None:
            body["dag_run_id"] = run_id
        run: Json = self.request("POST", f"dags/{_q(dag_id)}/dagRuns", json=body).json()
        return run

    def run(self, dag_id: str, run_id: str) -> Json:
        """One run."""
        found: Json = self.get(f"dags/{_q(dag_id)}/dagRuns/{_q(run_id)}")
        return found

    def runs(self, dag_id: str = "~", **filters: Any) -> list[Json]:
        """Runs of a DAG, or of all (``~``); filters as in Airflow's API: ``state``, ``run_type``, ``order_by``, ..."""
        return list(self.pages(f"dags/{_q(dag_id)}/dagRuns", "dag_runs", **filters))

    def wait_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float,
        on_update: Callable[[Json], None] | None = None,
        poll: float = 0.3,
    ) -> Json:
        """Wait until a run has ended, well or not, and return it; ``on_update`` hears of every change of state."""
        deadline = time.monotonic() + timeout
        last: str | None = None
        while True:
            run = self.run(dag_id, run_id)
            state = str(run["state"])
            if state != last and on_update is not None:
                on_update(run)
            last = state
            if state in FINAL_STATES:
                return run
            if time.monotonic() > deadline:
                open_tasks = [
                    f"{t['task_id']} {t['state'] or 'not scheduled'}"
                    for t in self.task_instances(dag_id, run_id)
                    if t["state"] not in ("success", "skipped", "failed", "upstream_failed")
                ]
                raise AirflowError(
                    f"Run {run_id} of {dag_id} is still {state} after {timeout:.0f} s"
                    f" (open: {', '.join(open_tasks[:8]) or 'no task'}); a task of a missing pool stays scheduled"
                )
            time.sleep(poll)

    def clear(self, dag_id: str, run_id: str, *, only_failed: bool = False) -> None:
        """Run a run again, all of it or what failed."""
        body = {"dry_run": False, "only_failed": only_failed}
        self.request("POST", f"dags/{_q(dag_id)}/dagRuns/{_q(run_id)}/clear", json=body)

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """All tasks of a run, mapped ones one by one."""
        return list(self.pages(f"dags/{_q(dag_id)}/dagRuns/{_q(run_id)}/taskInstances", "task_instances"))

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int | None = None
    ) -> Any:
        """What a task handed on; None when it handed on nothing."""
        path = f"dags/{_q(dag_id)}/dagRuns/{_q(run_id)}/taskInstances/{_q(task_id)}/xcomEntries/{_q(key)}"
        try:
            return self.get(path, deserialize="true", map_index=map_index)["value"]
        except AirflowError as error:
            if error.status == 404:
                return None
            raise

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one try, as text."""
        path = f"dags/{_q(dag_id)}/dagRuns/{_q(run_id)}/taskInstances/{_q(task_id)}/logs/{try_number}"
        content = self.get(path, map_index=map_index, full_content="true")["content"]
        return "\n".join(_log_line(entry) for entry in content) if isinstance(content, list) else str(content)

    # -- backfills -----------------------------------------------------------------------------------------------------

    def backfill(
        self,
        dag_id: str,
        from_date: date | datetime | str,
        to_date: date | datetime | str,
        *,
        max_active_runs: int,
        reprocess: str = "none",
        conf: Mapping[str, Any] | None = None,
        run_backwards: bool = False,
        patience: float = 120.0,
    ) -> Json:
        """Start a backfill over both dates, and return it.

        Airflow refuses a second one (409) until it has swept up the first, up to half a minute after its last run, and
        on a busy SQLite it may say 503: both are tried again for ``patience`` seconds.

        :param reprocess: ``none``, ``failed`` or ``completed``
        """
        if reprocess not in ("none", "failed", "completed"):
            raise UsageError(f"reprocess is {reprocess!r}; it may be none, failed or completed")
        body: Json = {
            "dag_id": dag_id,
            "from_date": _instant(from_date),
            "to_date": _instant(to_date),
            "run_backwards": run_backwards,
            "dag_run_conf": dict(conf or {}),
            "reprocess_behavior": reprocess,
            "max_active_runs": max_active_runs,
        }
        retry = _RETRY_STATUS | {409}
        found: Json = self.request("POST", "backfills", json=body, retry_status=retry, retry_for=patience).json()
        return found

    def backfill_runs(self, dag_id: str, backfill_id: int | None = None) -> list[Json]:
        """The runs of a DAG that backfills made; with ``backfill_id`` those of that one.

        Airflow does not say which backfill made a run. Two of one DAG are never active at once, so the time tells.
        """
        found = self.runs(dag_id, run_type="backfill")
        if backfill_id is None:
            return found
        spans = {b["id"]: (_moment(b["created_at"]), b["completed_at"]) for b in self.backfills(dag_id)}
        if backfill_id not in spans:
            raise UsageError(f"Airflow knows no backfill {backfill_id} of {dag_id}")
        begin, end = spans[backfill_id]
        moments = [(_moment(r["queued_at"]), r) for r in found if r["queued_at"]]
        return [r for at, r in moments if at >= begin and (end is None or at <= _moment(end))]

    def backfills(self, dag_id: str) -> list[Json]:
        """The backfills of a DAG; ``completed_at`` stays empty until Airflow has swept up."""
        return list(self.pages("backfills", "backfills", dag_id=dag_id))

    # -- assets --------------------------------------------------------------------------------------------------------

    def assets(self, **filters: Any) -> list[Json]:
        """All assets."""
        return list(self.pages("assets", "assets", **filters))

    def asset(self, name_or_uri: str) -> Json:
        """The asset of that name or URI."""
        found = [a for a in self.assets() if name_or_uri in (a["name"], a["uri"])]
        if not found:
            raise UsageError(f"Airflow knows no asset with the name or URI {name_or_uri!r}")
        return found[0]

    def asset_event(
        self, name_or_uri: str, partition_key: str | None = None, extra: Mapping[str, Any] | None = None
    ) -> Json:
        """Announce an asset, as an upstream system would."""
        body: Json = {"asset_id": self.asset(name_or_uri)["id"], "extra": dict(extra or {})}
        if partition_key is not None:
            body["partition_key"] = partition_key
        event: Json = self.request("POST", "assets/events", json=body).json()
        return event

    def asset_events(self, name_or_uri: str | None = None, **filters: Any) -> list[Json]:
        """What was announced, for one asset or all."""
        asset_id = self.asset(name_or_uri)["id"] if name_or_uri is not None else None
        return list(self.pages("assets/events", "asset_events", asset_id=asset_id, **filters))

    # -- pools ---------------------------------------------------------------------------------------------------------

    def pools(self) -> dict[str, Json]:
        """All pools by name."""
        return {p["name"]: p for p in self.pages("pools", "pools")}

    def set_pool(self, name: str, slots: int, description: str = "", include_deferred: bool = False) -> None:
        """Make a pool, or change it to this."""
        body: Json = {"slots": slots, "description": description, "include_deferred": include_deferred}
        try:
            self.request("POST", "pools", json={"name": name, **body})
        except AirflowError as error:
            if error.status != 409:
                raise
            self.request("PATCH", f"pools/{_q(name)}", json={"pool": name, **body})


def _q(part: str) -> str:
    return quote(part, safe="~")


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def _instant(value: date | datetime | str) -> str:
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo else value.isoformat() + "Z"
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    return value if "T" in value else f"{value}T00:00:00Z"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _detail(response: httpx.Response) -> str:
    """Airflow's own words, in one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text.split())[:300] or response.reason_phrase
    if isinstance(detail, list):  # pydantic: one entry per field
        return "; ".join(f"{'.'.join(str(x) for x in d.get('loc', ()))}: {d.get('msg')}" for d in detail)
    if isinstance(detail, dict):
        return "; ".join(f"{k}: {v}" for k, v in detail.items())
    return " ".join(str(detail).split())


def _log_line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    text = " ".join(str(entry[k]) for k in ("timestamp", "level", "event") if entry.get(k))
    for error in entry.get("error_detail") or ():
        text += f"\n  {error.get('exc_type')}: {error.get('exc_value')}"
    return text
