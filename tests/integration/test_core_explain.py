"""One published score, explained: from the values that were scored, also after they were built anew."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from lifecycle import Life

from perennial.cli import main
from perennial.lake.homes import feature_table, feed_table, prediction_table

pytestmark = pytest.mark.integration
KEY = "2013-03-20"


def published(life: Life, key: str = KEY) -> pa.Table:
    table = prediction_table(life.spec, life.entity).read([key])
    assert table is not None
    return table.sort_by("flight_id")


def asked(capsys: Any, *arguments: str) -> tuple[int, Any, str]:
    code = main(["explain", "flight_delay", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_score_is_made_again_from_the_values_that_were_scored(life: Life, capsys: Any) -> None:
    life.publish(KEY, "score-1")
    row = published(life).slice(100, 1).to_pylist()[0]
    code, out, _ = asked(capsys, row["flight_id"], "--partition", KEY, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["published"]["score"] == row["score"] == pytest.approx(found["again"], abs=1e-9)
    assert found["lineage"]["version"] == "1"
    assert found["published"]["arm"] == "champion"
    assert sum(f["contribution"] for f in found["features"]) + found["base"] == pytest.approx(found["again"], abs=1e-9)
    features = feature_table("flight_delay", _definition(life), ["flight_id"]).read([KEY])
    assert features is not None
    own = features.filter(pc.equal(features.column("flight_id"), row["flight_id"])).to_pylist()[0]
    for f in found["features"]:
        assert f["value"] is None or f["value"] == own[f["name"]], f["name"]
    code, out, _ = asked(capsys, row["flight_id"], "--partition", KEY, "--top", "3")
    assert code == 0
    assert "version 1 as champion" in out
    assert f"{len(found['features']) - 3} more add" in out
    outcome = "not known yet" if found["outcome"] is None else str(found["outcome"])
    assert f"outcome       {outcome}" in out


def _definition(life: Life) -> str:
    from perennial.features.definition import load_definition

    return load_definition(life.spec, life.folder, life.feeds).digest


def test_features_that_were_built_anew_are_found_as_they_were(life: Life, capsys: Any) -> None:
    life.publish(KEY, "score-1")
    row = published(life).slice(7, 1).to_pylist()[0]
    before = json.loads(asked(capsys, row["flight_id"], "--partition", KEY, "--json")[1])
    weather = feed_table(life.feeds["weather"])
    rows = weather.read([KEY])
    assert rows is not None
    own = [c for c in rows.column_names if c not in ("partition", "digest")]
    shifted = rows.select(own)
    for name in own:
        if pa.types.is_floating(shifted.schema.field(name).type):
            at = shifted.schema.get_field_index(name)
            shifted = shifted.set_column(at, name, pc.add(shifted.column(name), 25.0))
    weather.replace({KEY: shifted})
    from perennial.features.builder import FeatureBuilder
    from perennial.features.definition import load_definition

    definition = load_definition(life.spec, life.folder, life.feeds)
    assert FeatureBuilder("flight_delay", definition, life.feeds).ensure([KEY]).built == (KEY,)
    code, out, _ = asked(capsys, row["flight_id"], "--partition", KEY, "--json")
    after = json.loads(out)
    assert code == 0
    assert after["features"] == before["features"]
    table = feature_table("flight_delay", definition.digest, ["flight_id"])
    assert after["lineage"]["features_version"] < (table.version or 0)
    DeltaTable(table.uri).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    code, out, _ = asked(capsys, row["flight_id"], "--partition", KEY)
    assert code == 1
    assert "those that were scored are gone" in out


def test_values_that_do_not_give_the_score_are_said(life: Life, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    life.publish(KEY, "score-1")
    table = prediction_table(life.spec, life.entity)
    rows = published(life)
    scores = np.clip(rows.column("score").to_numpy() + 0.1, 0, 1)
    at = rows.schema.get_field_index("score")
    changed = rows.set_column(at, "score", pa.array(scores)).drop_columns(["partition", "digest"])
    table.replace({KEY: changed})
    code, out, _ = asked(capsys, rows.column("flight_id")[3].as_py(), "--partition", KEY)
    assert code == 1
    assert "the features were built anew since" in out


@pytest.mark.parametrize(
    ("key", "partition", "sentence"),
    [
        ("nobody", KEY, "published scores, but none for nobody; its keys look like"),
        ("x", "2013-03-21", "nothing is published for flight_delay 2013-03-21: score it first"),
        ("x", "March", "March is not a partition of flights"),
    ],
)
def test_what_is_not_there_is_a_sentence(life: Life, capsys: Any, key: str, partition: str, sentence: str) -> None:
    life.publish(KEY, "score-1")
    code, _, err = asked(capsys, key, "--partition", partition)
    assert code == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
