"""The client against a scripted server: logging in, trying again, paging, and errors in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest

from perennial.errors import UsageError
from perennial.local.rest import AirflowClient, AirflowError

pytestmark = pytest.mark.fast

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers /auth/token, and hands the rest to a list of prepared answers (the last one stays)."""

    def __init__(self, *answers: httpx.Response | Exception | Handler) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.logins = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.logins += 1
            return httpx.Response(201, json={"access_token": f"token{self.logins}"})
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


def client(server: Handler, **options: Any) -> AirflowClient:
    made = AirflowClient("http://127.0.0.1:1", "admin", "secret", **options)
    made._http = httpx.Client(base_url=made.base_url, transport=httpx.MockTransport(server))
    return made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.local.rest.time.sleep", lambda seconds: None)


def test_one_login_serves_many_requests() -> None:
    server = Server(httpx.Response(200, json={"dag_id": "d"}))
    airflow = client(server)
    assert airflow.dag("d") == airflow.dag("d") == {"dag_id": "d"}
    assert server.logins == 1
    assert server.requests[0].headers["Authorization"] == "Bearer token1"


def test_an_expired_login_is_renewed_once() -> None:
    server = Server(httpx.Response(401, json={"detail": "expired"}), httpx.Response(200, json={"dag_id": "d"}))
    assert client(server).dag("d") == {"dag_id": "d"}
    assert server.logins == 2
    refused = Server(httpx.Response(401, json={"detail": "no"}))
    with pytest.raises(AirflowError, match="answered 401 to GET dags/d: no"):
        client(refused).dag("d")


def test_a_wrong_password_is_told_at_once() -> None:
    with pytest.raises(AirflowError, match="refused the login of 'admin': Invalid credentials"):
        client(lambda _: httpx.Response(401, json={"detail": "Invalid credentials"})).dag("d")


def test_busy_and_restarting_servers_are_asked_again() -> None:
    server = Server(
        httpx.Response(503, json={"detail": "Database is locked"}),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.Response(200, json={"dag_id": "d"}),
    )
    assert client(server).dag("d") == {"dag_id": "d"}


def test_a_broken_connection_does_not_start_a_run_twice() -> None:
    server = Server(httpx.ReadError("reset"), httpx.Response(200, json={}))
    with pytest.raises(AirflowError, match="could not be reached to POST dags/d/dagRuns: ReadError: reset"):
        client(server).trigger("d")
    assert len(server.requests) == 1


def test_patience_ends() -> None:
    server = Server(httpx.Response(503, json={"detail": "Database is locked"}))
    with pytest.raises(AirflowError, match="answered 503 to GET dags/d: Database is locked") as caught:
        client(server, retry_for=0).dag("d")
    assert caught.value.status == 503


def test_errors_keep_airflow_s_detail_in_one_line() -> None:
    validation = httpx.Response(422, json={"detail": [{"loc": ["body", "from_date"], "msg": "Input should be a date"}]})
    with pytest.raises(AirflowError, match=r"answered 422 to GET dags/d: body\.from_date: Input should be a date"):
        client(Server(validation)).dag("d")
    with pytest.raises(AirflowError, match="<html> oops </html>"):
        client(Server(httpx.Response(500, text="<html>\n oops\n</html>"))).dag("d")


def test_listings_are_read_to_their_end() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        entries = [{"dag_id": str(i)} for i in range(offset, min(offset + 100, 250))]
        return httpx.Response(200, json={"dags": entries, "total_entries": 250})

    server = Server(page)
    assert [d["dag_id"] for d in client(server).dags()] == [str(i) for i in range(250)]
    assert len(server.requests) == 3


def test_triggering_with_a_key() -> None:
    server = Server(httpx.Response(200, json={"dag_run_id": "r"}))
    assert client(server).trigger("a.b", partition_key="2013-01-01", conf={"x": 1}, run_id="r") == {"dag_run_id": "r"}
    assert server.requests[0].url.path == "/api/v2/dags/a.b/dagRuns"
    assert b'"partition_key":"2013-01-01"' in server.requests[0].content
    assert b'"logical_date":null' in server.requests[0].content


def test_run_ids_with_odd_characters_are_escaped() -> None:
    server = Server(httpx.Response(200, json={"state": "success"}))
    client(server).run("d", "manual__2013-01-01T00:00:00+00:00/x")
    assert server.requests[0].url.raw_path == b"/api/v2/dags/d/dagRuns/manual__2013-01-01T00%3A00%3A00%2B00%3A00%2Fx"


def test_waiting_hears_of_every_change_of_state() -> None:
    states = ["queued", "running", "running", "success"]
    server = Server(*[httpx.Response(200, json={"state": s}) for s in states])
    heard: list[str] = []
    run = client(server).wait_run("d", "r", timeout=5, on_update=lambda r: heard.append(r["state"]))
    assert run["state"] == "success"
    assert heard == ["queued", "running", "success"]


def test_waiting_in_vain_says_what_is_open() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("taskInstances"):
            tasks = [{"task_id": "fit", "state": "scheduled"}, {"task_id": "done", "state": "success"}]
            return httpx.Response(200, json={"task_instances": tasks, "total_entries": 2})
        return httpx.Response(200, json={"state": "running"})

    with pytest.raises(AirflowError, match=r"r of d is still running after 0 s \(open: fit scheduled\)"):
        client(Server(answer)).wait_run("d", "r", timeout=0)


def test_a_task_that_handed_on_nothing() -> None:
    assert client(Server(httpx.Response(404, json={"detail": "XCom not found"}))).xcom("d", "r", "t") is None


def test_a_backfill_waits_for_the_one_before() -> None:
    server = Server(
        httpx.Response(409, json={"detail": "There is another running backfill for dag d"}),
        httpx.Response(503, json={"detail": "Database is locked"}),
        httpx.Response(200, json={"id": 2}),
    )
    made = client(server).backfill("d", date(2013, 1, 1), "2013-01-31", max_active_runs=3)
    assert made == {"id": 2}
    assert b'"from_date":"2013-01-01T00:00:00Z"' in server.requests[0].content
    assert b'"to_date":"2013-01-31T00:00:00Z"' in server.requests[0].content
    with pytest.raises(UsageError, match="may be none, failed or completed"):
        client(server).backfill("d", "2013-01-01", "2013-01-31", max_active_runs=1, reprocess="all")


def test_an_existing_pool_is_changed() -> None:
    server = Server(httpx.Response(409, json={"detail": "exists"}), httpx.Response(200, json={}))
    client(server).set_pool("p", 3)
    assert [r.method for r in server.requests] == ["POST", "PATCH"]


def test_an_unknown_asset() -> None:
    server = Server(httpx.Response(200, json={"assets": [], "total_entries": 0}))
    with pytest.raises(UsageError, match="no asset with the name or URI 'x'"):
        client(server).asset_event("x", "2013-01-01")
