"""A real MLflow behind a connection that loses answers: one run, one logged model, one version all the same."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from perennial.local.processes import last_lines
from perennial.registry import tracking, versions
from perennial.runs import Actor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ACTOR = Actor("m.train", "manual__1", "fit")


class Line(http.server.ThreadingHTTPServer):
    """Passes requests on, and hangs up instead of answering the first one whose path ends with ``lose``."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.lose, self.lost = behind, "", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Line
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length", "accept-encoding")}
        url = self.server.behind + self.path
        answer = httpx.request(self.command, url, content=body, headers=kept, timeout=60, trust_env=False)
        if self.server.lose and self.path.split("?")[0].endswith(self.server.lose):
            self.server.lose, self.server.lost = "", self.server.lost + 1
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("content-type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, _empty_mlflow: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(_empty_mlflow, folder / "mlflow.db")
    port, log = _free_port(), folder / "log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(url + "/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, last_lines(log)
            assert time.monotonic() < deadline, last_lines(log)
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def line(home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    line = Line(server)
    threading.Thread(target=line.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.url)
    tracking.client.cache_clear()
    yield line
    line.shutdown()
    line.server_close()
    tracking.client.cache_clear()


def test_a_lost_answer_creates_nothing_twice(line: Line, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "MLmodel").write_text("flavors: {}\n")

    line.lose = "/runs/create"
    run_id = tracking.run_of("m", ACTOR, "inputs")
    line.lose = "/logged-models"
    model_id = tracking.log_bundle(run_id, bundle, params={}, metrics={"a": 1.0}, tags={}, snapshots={})
    line.lose = "/model-versions/create"
    version = versions.register("m", run_id, model_id, {"as_of": "x"})
    assert line.lost == 3

    c = tracking.client()
    experiment = c.get_experiment_by_name("m").experiment_id
    assert [r.info.run_id for r in c.search_runs([experiment])] == [run_id]
    assert [(m.model_id, str(m.status)) for m in c.search_logged_models([experiment])] == [(model_id, "READY")]
    assert [(v.version, v.tags) for v in c.search_model_versions("name = 'm'")] == [("1", {"as_of": "x"})]
    assert version.version == "1"
