"""The census as upstream delivers it: persons of the American Community Survey in Massachusetts, a file a year.

The rows are those that the ``nannyml`` package carries as a data set (2015 to 2018, 278 thousand persons); its files
alone are installed, without the package's dependencies, in ``share/perennial-data`` of the environment.

==================================  ===================================================================================
``census_persons/{year}.parquet``     what the survey asks of everybody, children included, in its own codes
``census_employment/{year}.parquet``  whether each of them was employed
==================================  ===================================================================================
"""

from __future__ import annotations

import functools
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.errors import UsageError
from perennial.local.landing import deliver

if TYPE_CHECKING:
    import pandas as pd

YEARS = (2015, 2016, 2017, 2018)
PERSONS, EMPLOYMENT = "census_persons", "census_employment"
#: Columns of the source that say what another model thought.
_OTHERS = ["prediction", "predicted_probability", "year", "ESP"]


def land_census(landing: Path, first: int = YEARS[0], last: int = YEARS[-1]) -> int:
    """Deliver the years from the first to the last, both included; return the persons delivered.

    Delivering a year again replaces its files.

    :raises UsageError: the data has no such year, or is not installed.
    """
    for year in (first, last):
        if year not in YEARS:
            raise UsageError(f"The census data covers {YEARS[0]} to {YEARS[-1]}, and {year} is outside")
    total = 0
    for year in range(first, last + 1):
        persons = _source()[year]
        files = {PERSONS: persons.drop(columns=["employed"]), EMPLOYMENT: persons[["id", "employed"]]}
        for feed, frame in files.items():
            deliver(landing / feed / f"{year}.parquet", _encode(frame))
        total += len(persons)
    return total


def _encode(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    return sink.getvalue()


@functools.cache
def _source() -> dict[int, pd.DataFrame]:
    """Every person by year, read once per process."""
    import pandas as pd

    folder = data_folder()
    first, later, outcomes = (
        pd.read_parquet(folder / f"employment_MA_{part}.pq") for part in ("reference", "analysis", "analysis_target")
    )
    rows = pd.concat([first, later.merge(outcomes, on="id", validate="one_to_one")], ignore_index=True)
    types: dict[str, Any] = {c: str for c in rows.columns if c not in ("id", "AGEP", "employed", "year")}
    years = rows["year"]
    rows = rows.astype({**types, "AGEP": "int64"}).drop(columns=_OTHERS)
    return {year: rows[years == year].reset_index(drop=True) for year in YEARS}


def data_folder() -> Path:
    """Where the files lie.

    :raises UsageError: they are not installed.
    """
    folder = Path(sys.prefix) / "share" / "perennial-data" / "nannyml" / "datasets" / "data"
    if not folder.is_dir():
        raise UsageError(f"The census data is not installed in {folder}: 'make install' does it")
    return folder
