"""The loader: places, several errors at once, sets of specs, defaults, digests, the last good copy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from spec_folder import ARRIVALS, FLIGHTS, MODEL, Folder

from perennial.errors import SpecError, UsageError
from perennial.specs import digest, load_feed, load_live_specs, load_model, load_specs
from perennial.specs.loader import last_good, remember

pytestmark = pytest.mark.fast


def error(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        (load_feed if path.name == "feed.yaml" else load_model)(path)
    return str(caught.value)


def test_the_smallest_model_has_ten_lines_and_safe_defaults(specs: Folder) -> None:
    model = load_model(specs.model())
    assert len(MODEL.strip().splitlines()) == 10
    assert model.features.path == "features.sql"
    assert model.features.lookback.days == 28
    assert model.gates.champion.mode == "enabled"
    assert model.gates.champion.confidence == 0.9
    assert model.rollout.strategy == "immediate"


def test_short_forms_mean_the_long_ones(specs: Folder) -> None:
    short = load_model(specs.model(gates="{floor: {roc_auc: 0.62, mode: dry_run}}"))
    long = load_model(
        specs.model(
            task="{type: binary}",
            metric="{name: roc_auc}",
            features="{path: features.sql}",
            gates="{floor: {mode: dry_run, minimum: {roc_auc: 0.62}}}",
        )
    )
    assert short == long
    assert short.gates.floor.minimum == {"roc_auc": 0.62}


def test_an_error_shows_file_line_column_and_a_caret(specs: Folder) -> None:
    path = specs.model(labels="{feed: arrivals, colum: late}")
    said = error(path)
    assert f"{path}:8:26: " in said
    assert '"colum" is not known here, did you mean "column"? (allowed: feed, column, horizon, min_coverage)' in said
    assert "  8 | labels: {feed: arrivals, colum: late}\n    |                          ^" in said


def test_a_misspelt_key_is_not_reported_as_missing_too(specs: Folder) -> None:
    path = specs.write("models/flight_delay/model.yaml", MODEL.replace("metric:", "metrc:"))
    said = error(path)
    assert 'did you mean "metric"?' in said
    assert "missing" not in said


def test_all_errors_of_a_file_are_listed_in_order(specs: Folder) -> None:
    path = specs.model(task="binray", scoring="{threshold: 2}", seed="1", entity="Flights")
    lines = [line for line in error(path).splitlines() if line.startswith(str(path))]
    assert [line.split(":")[1] for line in lines] == ["4", "6", "12"]
    assert 'did you mean "binary"? (allowed: binary, multiclass, regression)' in lines[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "holds a list"),
        ("just text\n", "holds a single value"),
        ("version: 1\n\tname: x\n", ":2:1: a tab at the beginning of a line"),
        ("version: 1\nname: x\nname: y\n", ':3:1: "name" is said twice, first in line 2'),
        ("version: 1\ndescription: a: b\n", ":2:15: a colon where YAML expects none"),
        ("version: 1\nname: 'x\n", ":2:7: this quote is never closed"),
        ("version: 1\nname: @x\n", "a value cannot begin with '@'"),
        ("version: 1\n---\nname: x\n", ":2:1: a second document begins here"),
        ("version: 1\nname: *x\n", "`*` begins an alias"),
        ("version: 1\nname: &x y\nowner: *x\n", "anchors and aliases"),
        ("version: 1\nname: !!python/object:os.system x\n", "the tag !!python/object:os.system is not used"),
        ("version: 1\nretries: .nan\n", ".nan is not a number that a spec can hold"),
        ("version: 1\nretries: 1e999\n", "absurdly large"),
        ("version: 1\nretries: " + "9" * 5000 + "\n", "absurdly large"),
        ("version: 1\nretries: 010\n", "readers of YAML disagree about the number 010"),
        ("version: 1\nowner: yes\n", '"yes" is text to some readers of YAML and true or false to others'),
        ("version: 1\n1: x\n", "the key 1 is a number"),
        ("version: 1\n? [a]\n: x\n", "a key must be plain text"),
        ("[" * 100_000, "nested too deeply"),
        ("x: " + "y" * 300_000, "a spec has at most"),
        ("name: \x01\n", "a control character"),
        (b"version: 1\nname: caf\xe9\n", ":2:10: the file is not UTF-8 (byte 0xe9)"),
        ("version: 1\n".encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
    ],
)
def test_broken_yaml_gives_a_sentence(specs: Folder, text: str | bytes, expected: str) -> None:
    assert expected in error(specs.write("feeds/flights/feed.yaml", text))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(specs: Folder) -> None:
    text = FLIGHTS.replace("\n", "\r\n").encode("utf-8-sig")
    assert load_feed(specs.write("feeds/flights/feed.yaml", text)).name == "flights"


def test_a_missing_file_is_an_error_too(tmp_path: Path) -> None:
    assert "there is no such file" in error(tmp_path / "feeds" / "x" / "feed.yaml")


def test_the_name_equals_the_folder(specs: Folder) -> None:
    path = specs.write("models/other/model.yaml", MODEL)
    assert '"flight_delay" lies in "other"' in error(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"retries": '"3"'}, "stands where a whole number is expected"),
        ({"retries": "true"}, "true stands where a whole number is expected"),
        ({"retries": "50"}, "10 or less"),
        ({"owner": "7"}, "7 stands where text is expected"),
        ({"owner": '" "'}, "must not be empty"),
        ({"start": "2013-02-30"}, "2013-02-30 is not in the calendar"),
        ({"start": "2013"}, "is not a day: write it like 2013-01-31"),
        ({"start": "0001-01-01"}, "not between 1900 and 2200"),
        ({"timezone": "America/NewYork"}, "is not a time zone: write a name such as UTC"),
        ({"delay": "1 day"}, "is not a duration: write P14D"),
        ({"delay": "P999999999999D"}, "longer than a hundred years"),
        ({"key": "flight_id"}, "write a list: [flight_id]"),
        ({"key": "[]"}, "must not be empty"),
        ({"source": "{path: flights.csv}"}, "must hold {partition} exactly once"),
        ({"source": "{path: '../{partition}.csv'}"}, "must lie below the landing area"),
        ({"source": "{path: 'x/{partition}.json'}"}, "must end with .csv, .csv.gz or .parquet"),
        ({"contract": "{expectations: ../x.yaml}"}, "must be a file in the spec's own folder"),
        ({"contract": "{max_quarantined: 2}"}, "1 or less"),
        ({"columns": "{a: text}"}, "(allowed: string, integer, float, boolean, timestamp, date)"),
        ({"columns": "{'a b': string}"}, "is not a column name"),
        ({"version": "2"}, "(allowed: 1)"),
    ],
)
def test_values_of_a_wrong_kind(specs: Folder, changes: dict[str, str], expected: str) -> None:
    text = FLIGHTS
    if "columns" in changes:
        lines = FLIGHTS.splitlines()
        text = "\n".join(line for line in lines if not line.startswith("  ")) + "\n"
    assert expected in error(specs.feed(text, **changes))


def test_one_broken_file_never_stops_the_others(specs: Folder) -> None:
    specs.write("models/broken/model.yaml", "version: 1\n")
    loaded = load_specs([specs.root])
    assert set(loaded.models) == {"flight_delay"}
    assert set(loaded.feeds) == {"flights", "arrivals"}
    assert [(e.kind, e.name) for e in loaded.errors] == [("model", "broken")]
    with pytest.raises(SpecError, match="is missing"):
        loaded.model("broken")


def test_a_model_whose_feed_is_broken_says_where_to_look(specs: Folder) -> None:
    specs.feed(ARRIVALS, every="daily")
    loaded = load_specs([specs.root])
    assert not loaded.models
    assert any('the feed "arrivals" has errors of its own: see' in e.message for e in loaded.errors)


def test_two_specs_of_one_name_are_both_refused(specs: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "team")
    other.model()
    loaded = load_specs([specs.root, other.root])
    assert "flight_delay" not in loaded.models
    assert len(loaded.errors) == 2
    for e in loaded.errors:
        assert str(specs.root) in e.message
        assert str(other.root) in e.message


def test_models_of_one_folder_may_name_feeds_of_another(specs: Folder, tmp_path: Path) -> None:
    team = Folder(tmp_path / "team")
    team.model(MODEL.replace("name: flight_delay", "name: team_model"))
    loaded = load_specs([specs.root, team.root])
    assert not loaded.errors
    assert loaded.folder_of("model", "team_model") == team.root / "models" / "team_model"


def test_only_reads_one_model_and_the_feeds_it_names(specs: Folder) -> None:
    specs.feed(FLIGHTS.replace("flights", "weather"))
    specs.feed(FLIGHTS.replace("flights", "unused"))
    specs.write("models/flight_delay/features.sql", "SELECT * FROM flights JOIN weather USING (x)")
    specs.write("models/broken/model.yaml", "version: 1\n")
    loaded = load_specs([specs.root], only="flight_delay")
    assert set(loaded.models) == {"flight_delay"}
    assert set(loaded.feeds) == {"flights", "arrivals", "weather"}
    assert not loaded.errors
    assert set(load_specs([specs.root], only="unused").feeds) == {"unused"}
    with pytest.raises(UsageError, match="there is no model"):
        load_specs([specs.root], only="../x").model("x")


def test_an_unknown_name_is_answered_with_the_nearest(specs: Folder) -> None:
    with pytest.raises(UsageError, match='there is no model "flight_dealy", did you mean "flight_delay"'):
        load_specs([specs.root]).model("flight_dealy")


def test_defaults_stand_under_every_spec(specs: Folder) -> None:
    specs.write("defaults.yaml", "owner: shared\ndag_prefix: team_\ntags: [a]\nqueue: big\nretries: 4\n")
    specs.write("models/flight_delay/model.yaml", MODEL.replace("owner: flight-ops\n", "") + "retries: 1\n")
    loaded = load_specs([specs.root])
    assert not loaded.errors
    model = loaded.model("flight_delay")
    assert (model.owner, model.dag_prefix, model.tags, model.queue, model.retries) == (
        "shared",
        "team_",
        ["a"],
        "big",
        1,
    )
    assert loaded.feed("flights").owner == "flight-ops"
    assert loaded.feed("flights").retries == 4


def test_broken_defaults_are_one_error_with_its_place(specs: Folder) -> None:
    specs.write("defaults.yaml", "ownr: shared\n")
    loaded = load_specs([specs.root])
    assert not loaded.models
    first = loaded.errors[0]
    assert first.kind == "defaults"
    assert 'defaults.yaml:1:1: "ownr" is not known here, did you mean "owner"?' in first.message
    assert all("defaults.yaml is broken: see its own error" in e.message for e in loaded.errors[1:])


def test_a_digest_ignores_comments_and_line_breaks(specs: Folder) -> None:
    first = load_model(specs.model())
    second = load_model(
        specs.model("# words\n" + MODEL.replace("{feed: arrivals, column: late}", "\n  column: late\n  feed: arrivals"))
    )
    third = load_model(specs.model(training="{seed: 8}"))
    assert digest(first) == digest(second)
    assert digest(first) != digest(third)


def test_a_spec_that_breaks_lives_on_as_it_last_was_good(specs: Folder, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    good = load_live_specs([specs.root], memory=memory)
    assert not good.stale
    path = specs.model(metric="roc_uac")
    broken = load_live_specs([specs.root], memory=memory)
    assert broken.stale == {("model", "flight_delay")}
    assert broken.models == good.models
    assert "did you mean" in broken.errors[0].message
    assert last_good(path, memory) == good.model("flight_delay")
    specs.feed(ARRIVALS, every="hour")
    assert set(load_live_specs([specs.root], memory=memory).feeds) == {"flights", "arrivals"}
    specs.model()
    assert load_live_specs([specs.root], memory=memory).stale == {("feed", "arrivals")}


def test_memory_is_small_and_written_only_when_something_changed(specs: Folder, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    remember(load_specs([specs.root]), memory)
    before = {p.name: p.stat().st_mtime_ns for p in memory.iterdir()}
    remember(load_specs([specs.root]), memory)
    assert {p.name: p.stat().st_mtime_ns for p in memory.iterdir()} == before
    assert len(before) == 3
    assert last_good(tmp_path / "models" / "x" / "model.yaml", memory) is None


def test_a_memory_that_cannot_be_written_or_read_does_no_harm(specs: Folder, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert load_live_specs([specs.root], memory=blocked).models
    memory = tmp_path / "memory"
    remember(load_specs([specs.root]), memory)
    for path in memory.iterdir():
        path.write_text("{")
    assert last_good(specs.model(), memory) is None


def test_loading_is_fast(specs: Folder) -> None:
    specs.feed(FLIGHTS.replace("flights", "weather"))
    specs.model(MODEL.replace("name: flight_delay", "name: second"))
    load_specs([specs.root])
    times = []
    for _ in range(3):
        start = time.perf_counter()
        load_specs([specs.root])
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_specs_survive_json(specs: Folder) -> None:
    model = load_model(specs.model(training="{window: P90D, gap: P3D, start: 2013-01-02}", monitoring="{rule: {k: 1}}"))
    assert type(model).model_validate(model.model_dump(mode="json")) == model
    assert type(model).model_validate_json(model.model_dump_json()) == model
    assert digest(type(model).model_validate_json(model.model_dump_json())) == digest(model)
