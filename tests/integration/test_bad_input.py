"""Bad days: what lands, what is asked for and what is edited is wrong, and the machine is too.

In each: one sentence says what happened, nothing bad is published, and the next good partition goes through.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from in_process import Airflow, weak
from lifecycle import Life, utc

from airflow_home import PROJECT
from perennial.errors import DataError
from perennial.lake.homes import feed_table, prediction_table
from perennial.ledger import Ledger
from perennial.local.landing import LandingSimulator
from perennial.registry import versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BAD, NEXT = "2013-04-02", "2013-04-03"


def rows_of(life: Life, feed: str, key: str) -> int:
    info = feed_table(life.feeds[feed]).partitions().get(key)
    return 0 if info is None else info.rows


def verdict(feed: str, key: str) -> tuple[str, str]:
    entry = Ledger().find(feed, event="ingestion", partition=key)[-1]
    return entry.verdict, entry.reason


# ------------------------------------------------------------------------------------------------------------- landing


def header_only(path: Path) -> None:
    path.write_text(path.read_text().split("\n", 1)[0] + "\n")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def renamed(path: Path) -> None:
    path.write_text(path.read_text().replace("distance", "distanse", 1))


def another_feed(path: Path) -> None:
    path.write_text("station,reading\nEWR,1.5\n")


def words_for_numbers(path: Path) -> None:
    head, *lines = path.read_text().splitlines()
    at = head.split(",").index("distance")
    cells = [line.split(",") for line in lines]
    path.write_text("\n".join([head, *(",".join([*c[:at], "far", *c[at + 1 :]]) for c in cells)]) + "\n")


def all_null(path: Path) -> None:
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *("," * head.count(",") for _ in lines)]) + "\n")


def twice(path: Path) -> None:
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *lines, *lines]) + "\n")


def ten_times(path: Path) -> None:
    head, *lines = path.read_text().splitlines()
    at = head.split(",").index("flight_id")
    cells = [line.split(",") for line in lines]
    many = [",".join([*c[:at], f"{c[at]}-{i}", *c[at + 1 :]]) for i in range(10) for c in cells]
    path.write_text("\n".join([head, *many]) + "\n")


def latin(path: Path) -> None:
    head, first, rest = path.read_text().split("\n", 2)
    cells = first.split(",")
    cells[head.split(",").index("carrier")] = "Zürich"
    path.write_bytes(f"{head}\n{','.join(cells)}\n{rest}".encode("latin-1"))


def stray_quote(path: Path) -> None:
    head, first, rest = path.read_text().split("\n", 2)
    path.write_text(f'{head}\n"{first}\n{rest}')


LANDED = [
    (nothing, "is empty (0 bytes)"),
    (header_only, "no rows"),
    (half, "cannot be read: "),
    (renamed, "has no column 'distance'; it has 'distanse': was the column renamed?"),
    (another_feed, "has no column "),
    (words_for_numbers, "column 'distance' to double: invalid value 'far'"),
    (all_null, "null"),
    (twice, "key flight_id"),
    (ten_times, "row count"),
    (latin, "invalid UTF8 data"),
    (stray_quote, "cannot be read: "),
]


def test_bad_files_are_refused_and_stop_nobody(airflow: Airflow, life: Life, landing: LandingSimulator) -> None:
    days = [f"2013-04-{i + 4:02d}" for i in range(len(LANDED))]
    landing.land("flights", days[0], days[-1])
    landing.land("flights", NEXT, NEXT)
    for day, (spoil, says) in zip(days, LANDED, strict=True):
        path = landing.path("flights", day)
        spoil(path)
        os.utime(path, (time.time() - 60,) * 2)
        ran = airflow.run("flights.ingest", day)
        assert ran.state == "success" and ran.done("quarantine_batch") and ran.events == [], (spoil, ran.tasks)
        found, reason = verdict("flights", day)
        assert found == "quarantine_batch" and says in reason and "\n" not in reason, (spoil, reason)
        (shown,) = ran.xcom["quarantine_batch"]
        assert shown["partition"] == day and says in shown["reason"]
        assert rows_of(life, "flights", day) == 0
    assert airflow.run("flights.ingest", NEXT).done("commit", "announce")


def test_a_parquet_file_with_a_broken_footer_is_refused(airflow: Airflow, landing: LandingSimulator) -> None:
    landing.land("weather", BAD, NEXT)
    path = landing.path("weather", BAD)
    path.write_bytes(path.read_bytes()[:-8] + b"\x00\x00\x00\x00PARX")
    os.utime(path, (time.time() - 60,) * 2)
    assert airflow.run("weather.ingest", BAD).done("quarantine_batch")
    assert "weather/2013-04-02.parquet cannot be read: " in verdict("weather", BAD)[1]
    assert airflow.run("weather.ingest", NEXT).done("commit")


def test_a_file_that_is_still_being_written_is_looked_at_again(
    airflow: Airflow, life: Life, landing: LandingSimulator
) -> None:
    landing.land("flights", BAD, BAD)
    path = landing.path("flights", BAD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    ran = airflow.run("flights.ingest", BAD)
    assert ran.tasks["validate"] == "failed", "to be retried"
    assert "may not be whole yet, so it is looked at again" in ran.said
    assert Ledger().find("flights", event="ingestion", partition=BAD) == []
    path.write_bytes(whole)
    assert airflow.run("flights.ingest", BAD).done("commit")


def test_the_same_file_again_changes_nothing(airflow: Airflow, life: Life, landing: LandingSimulator) -> None:
    landing.land("flights", BAD, BAD)
    airflow.run("flights.ingest", BAD)
    before = feed_table(life.feeds["flights"]).version
    again = airflow.run("flights.ingest", BAD)
    assert again.done("commit") and feed_table(life.feeds["flights"]).version == before
    assert again.events == [("flights", BAD)], "whoever lands again wants its consumers to look again"


def test_a_correction_replaces_rows_features_and_scores(
    airflow: Airflow, life: Life, landing: LandingSimulator
) -> None:
    landing.land("flights", "2013-03-20", "2013-03-20")
    assert airflow.run("flight_delay.score", "2013-03-20").done("publish")
    table = prediction_table(life.spec, life.entity)
    first = table.partitions()["2013-03-20"]
    path = landing.path("flights", "2013-03-20")
    head, _, rest = path.read_text().split("\n", 2)
    path.write_text(f"{head}\n{rest}")  # the first flight was a mistake
    assert airflow.run("flights.ingest", "2013-03-20").done("commit", "announce")
    ran = airflow.run("flight_delay.score", "2013-03-20")
    assert ran.done("publish"), ran.log
    second = table.partitions()["2013-03-20"]
    assert (second.rows, second.digest != first.digest) == (first.rows - 1, True)
    keys = table.read(["2013-03-20"], columns=["flight_id"])
    assert keys.group_by("flight_id").aggregate([]).num_rows == keys.num_rows


# -------------------------------------------------------------------------------------------------------------- labels


def test_labels_that_are_too_few_wrong_or_of_nobody(life: Life) -> None:
    """Days with few labels are left out; labels of unknown flights are nobody's; labels that come twice are refused."""
    arrivals = life.feeds["arrivals"]
    table = feed_table(arrivals)

    def edit(key: str, change: Any) -> None:
        table.replace({key: change(table.read([key]).drop_columns(["partition", "digest"]))})

    edit("2013-03-15", lambda rows: rows.slice(0, rows.num_rows // 2))
    stranger = pa.array(["nobody-1"], pa.string())
    edit(
        "2013-03-16",
        lambda rows: pa.concat_tables(
            [rows, rows.slice(0, 1).set_column(rows.schema.get_field_index("flight_id"), "flight_id", stranger)]
        ),
    )
    done = life.train("few", utc("2013-03-26T05:00"), window_days=20)
    figures = next(r for r in done.evaluation.results if r.gate == "floor").figures
    assert figures["left_out"] >= 1, figures
    edit("2013-03-17", lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    with pytest.raises(DataError, match="labels of flight_delay: a key occurs twice in feed arrivals"):
        life.train("twice", utc("2013-03-26T05:00"), window_days=20)


def test_labels_that_land_twice_are_refused_at_the_door(airflow: Airflow, landing: LandingSimulator) -> None:
    landing.corrupt("arrivals", BAD, "duplicate_keys")
    assert airflow.run("arrivals.ingest", BAD).done("quarantine_batch")
    assert "flight_id" in verdict("arrivals", BAD)[1]


# ------------------------------------------------------------------------------------------------------------ features


QUERIES = [
    ("1 / 0.0 AS hour", r"returns infinity in 'hour' for \d+ of \d+ rows of partition 2013-\d\d-\d\d"),
    ("CAST(f.carrier AS INTEGER) AS hour", "failed for partition 2013-.*Could not convert string"),
]


@pytest.mark.parametrize(("column", "says"), QUERIES, ids=["infinity", "fails"])
def test_a_feature_query_that_goes_wrong(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, column: str, says: str
) -> None:
    import re

    root = weak(monkeypatch, tmp_path)
    (root / "models" / "flight_delay" / "features.sql").write_text(
        f"SELECT f.flight_id, f.sched_dep, f.carrier, {column} FROM flights f WHERE f.partition = $partition\n"
    )
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "failed" and ran.tasks["features"] == "failed", ran.tasks
    assert re.search(says, ran.log), ran.log
    assert versions.aliases("flight_delay") == {"champion": "1"}
    assert airflow.run("flight_delay.score", "2013-03-20").done("publish"), "the champion has a query of its own"


def test_a_category_that_nobody_has_seen_is_scored(airflow: Airflow, life: Life) -> None:
    flights = feed_table(life.entity)
    rows = flights.read(["2013-03-20"]).drop_columns(["partition", "digest"])
    at = rows.schema.get_field_index("carrier")
    flights.replace({"2013-03-20": rows.set_column(at, "carrier", pa.array(["??"] * rows.num_rows, pa.string()))})
    ran = airflow.run("flight_delay.score", "2013-03-20")
    assert ran.done("publish") and ran.xcom["publish"]["rows"] == rows.num_rows, ran.log


def test_a_column_that_is_gone_from_a_feed_is_a_sentence(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = weak(monkeypatch, tmp_path)
    spec = root / "feeds" / "weather" / "feed.yaml"
    spec.write_text("\n".join(line for line in spec.read_text().splitlines() if not line.strip().startswith("temp:")))
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "failed" and "temp" in ran.log, ran.log
    assert versions.aliases("flight_delay") == {"champion": "1"}


# --------------------------------------------------------------------------------------------------------------- specs


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Specs that the training edits while it fits."""
    from perennial.training import fit as fitting

    root = weak(monkeypatch, tmp_path, floor={"roc_auc": 0.5}, baseline={"mode": "disabled"})
    real = fitting.fit

    def fit(*args: Any, **given: Any) -> Any:
        path = root / "models" / "flight_delay"
        (path / "model.yaml").write_text((path / "model.yaml").read_text().replace("roc_auc: 0.5", "roc_auc: 0.99"))
        (path / "features.sql").write_text("SELECT nothing\n")
        return real(*args, **given)

    monkeypatch.setattr(fitting, "fit", fit)
    yield root


def test_a_spec_that_is_edited_in_the_middle_of_a_run_mixes_nothing(airflow: Airflow, edited: Path, life: Life) -> None:
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "success", ran.log
    assert "roc_auc: 0.99" in (edited / "models" / "flight_delay" / "model.yaml").read_text()
    (floor,) = [e for e in life.ledger.find("flight_delay", event="gate") if e.figures["gate"] == "floor"][-1:]
    assert floor.verdict == "pass", floor


def test_a_spec_that_is_deleted_or_renamed_while_its_dag_is_there(
    airflow: Airflow, life: Life, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = weak(monkeypatch, tmp_path)
    (root / "models" / "flight_delay").rename(root / "models" / "flight_late")
    gone = airflow.run("flight_delay.score", "2013-03-20")
    assert gone.state == "failed" and "flight_delay" in gone.said, gone.log
    assert "\n" not in gone.said
    shutil.rmtree(root / "models" / "flight_late")
    assert airflow.run("flight_delay.train", as_of="2013-03-26").state == "failed"
    assert prediction_table(life.spec, life.entity).partitions() == {}
    LandingSimulator(tmp_path / "home" / "landing").land("flights", BAD, BAD)
    assert airflow.run("flights.ingest", BAD).done("commit"), "others are untouched"


# --------------------------------------------------------------------------------------------------- clocks, requests


def test_the_machine_s_time_zone_and_a_day_of_23_hours_change_nothing(life: Life) -> None:
    state = life.publish("2013-03-10", "here")
    table = prediction_table(life.spec, life.entity)
    here = table.partitions()["2013-03-10"]
    program = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from lifecycle import Life\n"
        "life = Life(); life.publish('2013-03-10', 'there')\n"
        "from perennial.lake.homes import prediction_table\n"
        "print(prediction_table(life.spec, life.entity).partitions()['2013-03-10'].digest)\n"
    )
    env = os.environ | {"TZ": "Pacific/Auckland"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == here.digest, done.stderr
    assert state.actor.run_id == "here" and here.rows > 500


def test_a_backfill_into_the_future_skips_with_a_sentence(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = weak(monkeypatch, tmp_path)
    for spec in (root / "feeds").glob("*/feed.yaml"):
        spec.write_text(spec.read_text().replace("end: 2013-12-31", "end: 2113-12-31"))
    later = f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=3):%Y-%m-%d}"
    for dag in ("flights.ingest", "flight_delay.score"):
        ran = airflow.run(dag, later, run_id="backfill__x")
        assert set(ran.tasks.values()) == {"skipped"}, ran.tasks
        assert f"flights {later} is in the future" in capfd.readouterr().out


# --------------------------------------------------------------------------------------------------------- a full disk


FILL = """
import os, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from perennial.lake.table import PartitionedTable
from perennial.ledger import Entry, Ledger
from perennial.storage import FileStore

root = Path(sys.argv[1])
rows = lambda n, seed: pa.table({"id": np.arange(n), "x": np.random.default_rng(seed).random(n)})
table = PartitionedTable((root / "lake").as_uri(), ["id"])
table.replace({"2013-01-01": rows(1000, 0)})
store, ledger = FileStore(root / "state"), Ledger((root / "ledger").as_uri())
store.put("runs/a.json", b"1" * 1000)
entry = lambda i: Entry(id=f"t/{i}", event="gate", subject="m", verdict="pass", reason="r")
ledger.append(entry(0))
filler = root / "filler"
with open(filler, "wb") as f:
    try:
        while True:
            f.write(os.urandom(65536)); f.flush()
    except OSError:
        pass
before = table.partitions()
failed = []
for name, act in {
    "table": lambda: table.replace({"2013-01-02": rows(200_000, 1)}),
    "store": lambda: store.put("runs/a.json", b"2" * 500_000),
    "ledger": lambda: ledger.append(Entry(id="t/1", event="gate", subject="m", verdict="pass", reason="r" * 500_000)),
}.items():
    try:
        act()
    except Exception as e:
        failed.append(f"{name}: {type(e).__name__}: {str(e).splitlines()[0]}")
print("FAILED", failed)
assert [f.split(":")[0] for f in failed] == ["table", "store", "ledger"], failed
assert all("No space left" in f for f in failed), failed
assert table.partitions() == before and store.get("runs/a.json") == b"1" * 1000
assert [e.id for e in ledger.entries("m")] == ["t/0"]
assert [p.name for p in (root / "state").rglob(".*")] + [p.name for p in (root / "ledger").rglob(".*")] == []
filler.unlink()
table.replace({"2013-01-02": rows(200_000, 1)}); store.put("runs/a.json", b"2"); ledger.append(entry(1))
assert {k: p.rows for k, p in table.partitions().items()} == {"2013-01-01": 1000, "2013-01-02": 200_000}
assert [e.id for e in ledger.entries("m")] == ["t/0", "t/1"]
print("OK")
"""


def test_a_full_disk_changes_nothing_and_is_no_trouble_once_there_is_room(tmp_path: Path) -> None:
    """On a small file system of its own, mounted in a mount namespace that ends with the test."""
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    mount = tmp_path / "small"
    mount.mkdir()
    inside = f'mount -t tmpfs -o size=8m none "{mount}" && exec "{sys.executable}" "{script}" "{mount}"'
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *as_user, "--mount", "sh", "-c", inside], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert done.returncode == 0 and done.stdout.endswith("OK\n"), done.stdout + done.stderr
