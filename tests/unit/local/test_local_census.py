"""The census that lands is the survey's own, by year, in the columns that the feeds declare."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from perennial.errors import UsageError
from perennial.local.__main__ import main
from perennial.local.census import EMPLOYMENT, PERSONS, land_census
from perennial.specs.loader import load_specs

pytestmark = pytest.mark.fast


def test_a_year_lands_as_the_feeds_declare_it(tmp_path: Path, home: Path) -> None:
    assert land_census(tmp_path, 2017, 2018) == 69_635 + 70_131, "the survey's size"
    persons, employment = (pd.read_parquet(tmp_path / feed / "2018.parquet") for feed in (PERSONS, EMPLOYMENT))
    specs = load_specs(only="employment")
    assert set(persons.columns) == set(specs.feed(PERSONS).columns)
    assert list(employment.columns) == list(specs.feed(EMPLOYMENT).columns)
    assert persons["id"].is_unique and set(persons["id"]) == set(employment["id"])
    both = persons.merge(employment, on="id")
    assert both.loc[both["AGEP"] < 16, "employed"].sum() == 0, "of children nobody asks"
    assert both.loc[both["AGEP"].between(25, 54), "employed"].mean() > 0.75
    assert persons[["SEX", "RAC1P"]].notna().all().all() and set(persons["SEX"]) == {"1", "2"}
    other = pd.read_parquet(tmp_path / PERSONS / "2017.parquet")
    assert not set(other["id"]) & set(persons["id"]), "other persons every year"


def test_another_year_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="covers 2015 to 2018, and 2019 is outside"):
        land_census(tmp_path, 2015, 2019)


def test_the_command_lands_where_ingestion_looks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["census", "--first", "2016", "--last", "2016"]) == 0
    assert "69,126 persons of 2016 to 2016 landed in" in capsys.readouterr().out
    assert (home / "landing" / PERSONS / "2016.parquet").is_file()


def test_the_command_says_what_is_wrong(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERENNIAL_LANDING", "s3://bucket/landing")
    assert main(["census"]) == 1
    assert "lands in a local folder only" in capsys.readouterr().err
