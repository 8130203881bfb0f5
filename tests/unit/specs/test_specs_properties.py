"""Whatever the text: a spec, or a SpecError. Never another exception."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_folder import ARRIVALS, FLIGHTS, MODEL, Folder

from perennial.errors import SpecError
from perennial.specs import load_specs
from perennial.specs.loader import parse_spec

pytestmark = pytest.mark.fast

FEED_PATH, MODEL_PATH = Path("/specs/feeds/flights/feed.yaml"), Path("/specs/models/flight_delay/model.yaml")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["P1D", "P0D", "PT", "2013-01-01", "{partition}", "data", "roc_auc", "day", "0 6 * * *", "<fill in: x>"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def refuse_or_read(kind: str, text: str | bytes) -> None:
    path = FEED_PATH if kind == "feed" else MODEL_PATH
    with contextlib.suppress(SpecError):
        parse_spec("feed" if kind == "feed" else "model", path, text)


@settings(deadline=None)
@given(text=st.text(), kind=st.sampled_from(["feed", "model"]))
def test_any_text(text: str, kind: str) -> None:
    refuse_or_read(kind, text)


@settings(deadline=None)
@given(raw=st.binary(), kind=st.sampled_from(["feed", "model"]))
def test_any_bytes(raw: bytes, kind: str) -> None:
    refuse_or_read(kind, raw)


@given(data=st.data(), kind=st.sampled_from(["feed", "model"]))
@settings(max_examples=150, deadline=None)
def test_a_good_spec_with_characters_changed(data: st.DataObject, kind: str) -> None:
    text = FLIGHTS if kind == "feed" else MODEL
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    put = data.draw(st.text(alphabet=" \n\t:{}[]&*!|>'\"%@#-,?abc019.~<é\x00\u2028", max_size=6))
    refuse_or_read(kind, text[:start] + put + text[end:])


@given(data=st.data(), kind=st.sampled_from(["feed", "model"]))
@settings(max_examples=200, deadline=None)
def test_a_good_spec_with_any_value_anywhere(data: st.DataObject, kind: str) -> None:
    from perennial.specs.feeds import FeedSpec
    from perennial.specs.models import ModelSpec

    cls = FeedSpec if kind == "feed" else ModelSpec
    said = yaml.safe_load(FLIGHTS if kind == "feed" else MODEL)
    key = data.draw(st.sampled_from(sorted(cls.model_fields)))
    value = data.draw(values)
    inner = cls.model_fields[key].annotation
    fields = sorted(getattr(inner, "model_fields", {}))
    if fields and data.draw(st.booleans()):
        value = {
            **(said.get(key) if isinstance(said.get(key), dict) else {}),
            data.draw(st.sampled_from(fields)): value,
        }
    refuse_or_read(kind, yaml.safe_dump({**said, key: value}, allow_unicode=True))


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from(["UTC", "integer", "day", "late", "[", ""])), max_size=3
    )
)
@settings(max_examples=40, deadline=None)
def test_whole_folders(changes: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Folder(Path(home))
        arrivals = ARRIVALS
        for at, put in changes:
            arrivals = arrivals[:at] + put + arrivals[at + len(put) :]
        folder.write("feeds/arrivals/feed.yaml", arrivals)
        folder.feed(FLIGHTS)
        folder.model(MODEL)
        loaded = load_specs([folder.root])
        assert "flights" in loaded.feeds
        assert ("arrivals" in loaded.feeds) or loaded.errors
