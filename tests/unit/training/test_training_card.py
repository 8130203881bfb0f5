"""The parts of a card: figures, importance, plots, and prose that is never trusted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.gates.metrics import get_metric
from perennial.specs import ModelSpec
from perennial.training.card import svg
from perennial.training.card.importance import REPEATS, Feature, importance
from perennial.training.card.markdown import plain
from perennial.training.card.measures import Judged, calibration, measures, wilson
from perennial.training.card.page import to_page
from perennial.training.card.parts import Card, Facts, Section, Table, Text, Tile, words
from perennial.training.card.prose import to_html, to_markdown
from perennial.training.data import Rows

pytestmark = pytest.mark.fast

SPEC = ModelSpec.model_validate(
    {
        "version": 1, "name": "m", "owner": "o", "task": "binary", "metric": "roc_auc", "entity": "e",
        "features": "features.sql", "labels": {"feed": "e", "column": "y"}, "estimator": {"type": "a.B"},
        "gates": {"floor": {"balanced_accuracy": 0.5}},
    }
)  # fmt: skip


def rows(n: int = 4000, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.6, n)
    return (rng.uniform(size=n) < p).astype(float), p, np.sort(rng.integers(0, 14, n)).astype(str)


# ------------------------------------------------------------------------------------------------------------- figures


def test_measures_begin_with_the_specs_metric_and_have_intervals_around_them() -> None:
    y, p, blocks = rows()
    found = measures(SPEC, Judged(y, p, blocks, 0.3))
    assert [m.name for m in found[:2]] == ["roc_auc", "balanced_accuracy"]
    assert {"log_loss", "brier_score", "precision"} <= {m.name.removeprefix("neg_") for m in found}
    for m in found:
        assert m.low is not None and m.value is not None and m.high is not None
        assert m.low < m.value < m.high


def test_a_metric_without_a_value_says_why_instead_of_a_figure() -> None:
    y, p, blocks = rows(200)
    found = {m.name: m for m in measures(SPEC, Judged(np.zeros_like(y), p, blocks, 0.3))}
    assert found["roc_auc"].value is None
    assert found["roc_auc"].why_not


def test_rows_as_blocks_do_not_take_a_recomputation_each() -> None:
    y, p, _ = rows(3000)
    found = measures(SPEC, Judged(y, p, None, 0.3))
    assert next(m.blocks for m in found if m.name == "average_precision") == 50
    assert found[0].blocks == 3000


def test_measures_of_several_classes_and_of_values() -> None:
    rng = np.random.default_rng(4)
    scores = rng.dirichlet((2, 2, 2), 1500)
    y = np.array([rng.choice(3, p=p) for p in scores]).astype(float)
    blocks = np.sort(rng.integers(0, 12, 1500)).astype(str)
    classes = ModelSpec.model_validate({**SPEC.model_dump(), "task": "multiclass", "metric": "accuracy", "gates": {}})
    found = measures(classes, Judged(y, scores, blocks, None))
    assert found[0].name == "accuracy"
    assert all(m.value is not None and m.low is not None for m in found), found
    values = ModelSpec.model_validate(
        {**SPEC.model_dump(), "task": "regression", "metric": "mean_absolute_error", "gates": {}}
    )
    said = rng.normal(size=1500)
    error = measures(values, Judged(said + rng.normal(0, 0.5, 1500), said, blocks, None))[0]
    assert error.value == pytest.approx(0.4, abs=0.05)
    assert not error.greater_is_better


def test_calibration_of_true_probabilities_lies_on_the_diagonal_and_a_shift_shows() -> None:
    y, p, blocks = rows(20_000)
    good = calibration("binary", Judged(y, p, blocks, 0.3))
    bad = calibration("binary", Judged(y, np.clip(p + 0.2, 0, 1), blocks, 0.3))
    assert good is not None and bad is not None
    assert sum(b.rows for b in good.bins) == 20_000
    assert good.error < 0.02 < 0.15 < bad.error
    assert all(b.low <= b.came <= b.high for b in good.bins)


def test_calibration_of_values_and_of_the_likeliest_class() -> None:
    rng = np.random.default_rng(3)
    said = rng.normal(100, 20, 2000)
    values = calibration("regression", Judged(said + rng.normal(0, 5, 2000), said, np.arange(2000), None))
    assert values is not None and values.kind == "value" and len(values.bins) == 10
    scores = rng.dirichlet((3, 2, 1), 3000)
    y = np.array([rng.choice(3, p=s) for s in scores]).astype(float)
    classes = calibration("multiclass", Judged(y, scores, np.arange(3000), None))
    assert classes is not None and classes.kind == "confidence" and classes.error < 0.05


def test_calibration_of_nothing_is_none_and_of_one_score_has_one_bin() -> None:
    empty = np.empty(0)
    assert calibration("binary", Judged(empty, empty, empty, 0.5)) is None
    one = calibration("binary", Judged(np.array([0.0, 1.0]), np.array([0.5, 0.5]), np.array(["a", "b"]), 0.5))
    assert one is not None and len(one.bins) == 1
    assert "<svg" in svg.calibration(one)


def test_wilsons_interval_stays_inside_and_does_not_shrink_to_nothing() -> None:
    low, high = wilson(0.0, 20)
    assert low == 0.0
    assert 0.1 < high < 0.2


# ---------------------------------------------------------------------------------------------------------- importance


def frame(n: int = 2000) -> Rows:
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"strong": rng.normal(size=n), "weak": rng.normal(size=n), "noise": rng.normal(size=n)})
    y = (2 * X["strong"] + 0.5 * X["weak"] + rng.normal(size=n) > 0).astype(float).to_numpy()
    return Rows(X, y, np.array(["d"] * n))


def scorer(X: pd.DataFrame) -> np.ndarray:
    return (2 * X["strong"] + 0.5 * X["weak"]).to_numpy(dtype=float)


def test_importance_finds_what_a_model_uses_in_its_order() -> None:
    found = importance(scorer, frame(), get_metric("roc_auc", "binary"), 0.5, seed=1)
    assert found is not None
    assert [f.name for f in found.features] == ["strong", "weak", "noise"]
    assert found.features[2] == Feature("noise", 0.0, 0.0, 0.0)
    assert found.repeats == REPEATS
    assert all(f.least <= f.loss <= f.most for f in found.features)


def test_importance_is_the_same_with_the_same_seed_and_another_with_another() -> None:
    metric = get_metric("roc_auc", "binary")
    first, again, other = (importance(scorer, frame(), metric, 0.5, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_a_slow_model_gets_fewer_rows_and_fewer_repeats_and_the_card_is_told() -> None:
    found = importance(scorer, frame(), get_metric("roc_auc", "binary"), 0.5, seed=1, seconds=0.0)
    assert found is not None
    assert found.repeats == 1
    assert found.rows == 100 < found.of


def test_importance_without_rows_is_none() -> None:
    assert importance(scorer, frame(0), get_metric("roc_auc", "binary"), 0.5, seed=1) is None


# --------------------------------------------------------------------------------------------------------------- prose

HOSTILE = """# Title
<script>alert(1)</script> <img src=x onerror=alert(1)>
## Limits
[click](javascript:alert(1)) [data](data:text/html;base64,x) [ok](https://example.org/a)
![track](https://example.org/pixel.png)

| a | b |
|---|---|
| <b>1</b> | 2 |

```
<script>in code</script>
```
"""


def test_a_readme_as_html_has_no_html_no_image_and_no_script_address_of_its_own() -> None:
    html = to_html(HOSTILE)
    assert "<script" not in html and "<img" not in html and "<b>" not in html
    assert 'href="javascript' not in html and 'href="data' not in html
    assert '<a href="https://example.org/a">ok</a>' in html
    assert "pixel.png" not in html and "(image: track)" in html
    assert "Title" not in html
    assert "<h4>Limits</h4>" in html
    assert "<table>" in html


def test_a_readme_as_markdown_is_shown_as_text_where_it_is_html() -> None:
    text = to_markdown(HOSTILE)
    outside = text.split("```")[0]
    assert "<script" not in outside and "<img" not in outside
    assert "javascript:" not in text and "](data:" not in text
    assert "#### Limits" in text and "# Title" not in text
    assert "<script>in code</script>" in text  # code is text already
    assert to_markdown("```\nnever closed").endswith("```")


@given(st.text())
def test_no_text_breaks_out_of_a_page(text: str) -> None:
    made = Card(
        text, text, (Tile(text, text, text, text),),
        (Section(text, (Text(text), Facts(((text, text),)), Table((text,), ((text,),), 0))),),
        ((text, "https://example.org/" + text),), {},
    )  # fmt: skip
    import html as parser
    import re

    page = to_page(made).decode("utf-8", "surrogatepass") if "\ud800" not in text else ""
    body = page.partition("</style>")[2]
    tags = set(re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)", body))
    assert tags <= {"main", "h1", "h2", "p", "div", "span", "b", "a", "dl", "dt", "dd", "table", "thead", "tbody", "tr",
                    "th", "td", "html"}  # fmt: skip
    assert parser.unescape(body).count("<script") <= 10 * text.count("<script")


@given(st.text(alphabet="<>&|`*[]()_#\\ \nab"))
def test_plain_text_is_only_text_in_markdown(text: str) -> None:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parseInline("x " + plain(text))
    kinds = {c.type for t in tokens for c in t.children or ()}
    assert kinds <= {"text", "text_special"} | ({"em_open", "em_close", "strong_open", "strong_close"} if "_" in text
                                                else set())  # fmt: skip


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), ""])
def test_what_is_not_there_is_not_known(value: object) -> None:
    assert words(value) == "not known"


def test_a_section_without_content_says_so() -> None:
    page = to_page(Card("t", "l", (), (Section("Empty", ()), Section("Bare", (Table(("a",), (), None, "no rows"),))),
                        (), {})).decode()  # fmt: skip
    assert "<p>not known</p>" in page
    assert "no rows" in page


def test_plots_draw_what_is_known_and_escape_names() -> None:
    drawn = svg.importance([Feature("<x>", 0.2, 0.1, 0.3), Feature("nan", float("nan"), 0.0, 0.0)])
    assert "&lt;x&gt;" in drawn and "<x>" not in drawn
    assert "nan" not in drawn
    assert "<svg" in svg.importance([])
