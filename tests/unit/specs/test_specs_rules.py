"""What cannot work, and what does not work yet, is refused with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from spec_folder import ARRIVALS, FLIGHTS, Folder

from perennial.errors import SpecError
from perennial.specs import load_feed, load_model, load_specs
from perennial.specs.cron import problem_with

pytestmark = pytest.mark.fast

Message = Callable[..., str]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rollout": "{strategy: canary}"}, "rollout.strategy: canary is not available yet (allowed today: immediate)"),
        ({"compute": "{backend: docker}"}, "compute.backend: docker is not available yet (allowed today: local)"),
        ({"scoring": "{shards: 4}"}, "scoring.shards: 4 is not available yet (allowed today: 1)"),
        ({"scoring": "{on: {at: PT7H}}"}, "scoring.on: {at: ...} is not available yet (allowed today: data)"),
        ({"gates": "{champion: {block: carrier}}"}, "gates.champion.block: carrier is not available yet"),
        ({"stage": "{memory: 1gb}"}, "'1gb' is not a size: write 512m or 2g"),
        ({"stage": "{latency_per_1000: 1}"}, "1 is not a duration"),
        ({"approval": "{required: true}"}, "approval is not available yet"),
        ({"notify": "{}"}, "notify is not available yet"),
        ({"retirement": "{after_unused: P180D}"}, "retirement is not available yet"),
        ({"costs": "{per_cpu_hour: 0.05}"}, "costs is not available yet"),
        ({"training": "{weight: w}"}, "training.weight is not available yet"),
    ],
)
def test_what_is_not_built_is_refused_by_name(message: Message, changes: dict[str, str], expected: str) -> None:
    said = message(**changes)
    assert expected in said
    assert "is not known here" not in said


def test_other_sources_are_not_available_yet(specs: Folder) -> None:
    with pytest.raises(SpecError, match=r"source.kind: sql is not available yet \(allowed today: files\)"):
        load_feed(specs.feed(source="{kind: sql, path: 'x/{partition}.csv'}"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metric": "roc_uac"}, 'not a metric, did you mean "roc_auc"?'),
        ({"metric": "r2"}, "r2 is a metric of regression, and the task is binary"),
        ({"task": "multiclass"}, "roc_auc is a metric of two classes, and the task is multiclass"),
        ({"metric": "f1_macro"}, "f1_macro is a metric of several classes, and the task is binary"),
        ({"task": "{type: binary, classes: [0, 1, 2]}"}, "a binary task has a positive class and the rest"),
        ({"task": "{type: multiclass, classes: [0, 1]}"}, "2 classes are no multiclass task"),
        (
            {"task": "{type: multiclass, classes: [a, b, c]}", "metric": "accuracy"},
            "the class 'a' would never match: the label \"late\" is declared as integer",
        ),
        ({"task": "{type: multiclass, classes: [0, 1, 1]}"}, "the class 1 is there twice"),
        ({"task": "{type: multiclass, positive: 4, classes: [1, 2, 3]}"}, "4 is not among the classes"),
        ({"task": "multiclass", "scoring": "{threshold: 0.5}"}, "decides for the likeliest class"),
        ({"gates": "{floor: {roc_auc: 62}}"}, "lies between 0 and 1, so a floor of 62 cannot be meant"),
        ({"gates": "{floor: {mod: 0.5}}"}, 'did you mean "mode"?'),
        ({"gates": "{champion: {min_gain: 5}}"}, "a gain of 5 cannot be meant"),
        ({"gates": "{slices: [{by: hour}, {by: hour}]}"}, '"hour" is sliced twice'),
        ({"gates": "{slices: [{by: hour, bins: [12, 6]}]}"}, "bins must rise"),
        ({"gates": "{slices: [{by: hour, minimum: {roc_auc: 62}}]}"}, "so a floor of 62 cannot be meant"),
        ({"gates": "{slices: [{by: hour, minimum: {roc_uac: 0.6}}]}"}, 'did you mean "roc_auc"?'),
        ({"gates": "{slices: [{by: hour, bins: [6], groups: {a: [1]}}]}"}, "write either bins"),
        ({"gates": "{slices: {by: hour}}"}, "gates"),
        ({"gates": "{fairness: {by: [sex], not_applicable: no people}}"}, "not_applicable says that there are none"),
        ({"gates": "{fairness: {not_applicable: ''}}"}, "this must not be empty"),
        ({"gates": "{fairness: {by: [sex, sex]}}"}, '"sex" is named twice'),
        ({"gates": "{fairness: {by: [late]}}"}, '"late" is the label'),
        ({"gates": "{fairness: {by: sex}}"}, "write a list: [sex]"),
        ({"gates": "{fairness: {by: [sex], measures: [precision]}}"}, "selection_rate"),
        ({"gates": "{fairness: {by: [sex], limit: 0}}"}, "a number that is above 0"),
        ({"gates": "{fairness: {by: [{column: sex, groups: {men: [1], women: [1]}}]}}"}, '1 is in "men" already'),
        ({"gates": "{fairness: {by: [{column: sex, groups: {other: [1]}}]}}"}, "choose another name"),
        ({"gates": "{fairness: {by: [{column: sex, groups: {men: []}}]}}"}, 'group "men" has no values'),
        (
            {"task": "regression", "metric": "r2", "gates": "{fairness: {by: [carrier]}}"},
            "a regression makes no decisions whose rates could be compared",
        ),
        ({"training": "{schedule: 0 25 * * *}"}, "'25' in '0 25 * * *' is not a cron hour"),
        ({"training": "{schedule: monthly}"}, "is not a cron expression"),
        ({"training": '{schedule: "0 0 31 2 *"}'}, "never comes"),
        ({"gates": "{champion: {block: row}}"}, "rows of one day are alike"),
        ({"training": "{holdout: P7D}"}, "a holdout of 7 days has 7 blocks"),
        ({"training": "{holdout: PT36H}"}, "counts whole partitions of a day: write P1D or P2D"),
        ({"training": "{gap: P0D}"}, "lets training see labels that were not known yet: write auto, or at least P1D"),
        ({"training": "{gap: soon}"}, "neither auto nor a duration"),
        ({"training": "{window: PT1H}"}, "training.window is shorter than one partition"),
        ({"training": "{start: 2012-01-01}"}, '"flights" begins only on 2013-01-01'),
        ({"training": "{start: 2014-01-01}"}, '"flights" ends on 2013-12-31'),
        ({"labels": "{feed: arrivals, column: late, horizon: P30D}"}, "shorter than the wait for its labels, P31D"),
        ({"labels": "{feed: arivals, column: late}"}, 'there is no feed "arivals", did you mean "arrivals"?'),
        ({"labels": "{feed: arrivals, column: lat}"}, '"arrivals" has no column "lat", did you mean "late"?'),
        ({"labels": "{feed: arrivals, column: flight_id}"}, "is part of the key"),
        ({"entity": "fligths"}, 'there is no feed "fligths", did you mean "flights"?'),
        ({"features": "{path: features.sql, lookback: PT6H}"}, "features.lookback is shorter than one partition"),
        ({"features": "features.txt"}, "must end with .sql or .py"),
        ({"retraining": "{cooldown: PT6H}"}, "a cooldown of PT6H is shorter than one partition"),
        ({"retraining": "{on: drift}"}, "write a list: [drift]"),
        ({"monitoring": "{rule: {k: 4, n: 3}}"}, "k (4) is larger than n (3)"),
        ({"scoring": "{threshold: 1.5}"}, "a threshold is a probability, and 1.5 is not between 0 and 1"),
        ({"scoring": "{on: tomorrow}"}, "write data"),
        ({"search": "{trials: 5}"}, "a search needs a space"),
        ({"search": "{space: {a: {int: [7]}}}"}, "int needs two numbers"),
        ({"search": "{space: {a: {int: [7, 3]}}}"}, "must be smaller than the highest"),
        ({"search": "{space: {a: {float: [0, 1], log: true}}}"}, "lowest value above 0"),
        ({"search": "{space: {a: {choice: []}}}"}, "choice needs a list"),
        ({"search": "{space: {a: {int: [1, 2], lgo: true}}}"}, 'did you mean "log"?'),
        ({"search": "{space: {a: {between: [1, 2]}}}"}, "write one of"),
        ({"estimator": "{type: HistGradientBoosting}"}, "write an importable class such as"),
        ({"compute": "{memory: 4g}"}, "compute.memory is not available yet"),
        ({"compute": "{timeout: P0D}"}, "no fit ends in no time"),
        (
            {"task": "{type: binary, positive: soon}"},
            "the positive class is 'soon', and the label \"late\" is declared as integer",
        ),
        ({"task": "{type: binary, positive: [1]}"}, "write one value"),
        ({"dag_prefix": "a b"}, "letters, digits"),
    ],
)
def test_what_cannot_work_is_refused(message: Message, changes: dict[str, str], expected: str) -> None:
    assert expected in message(**changes)


REGRESSION = {
    "task": "regression",
    "metric": "neg_mean_absolute_error",
    "labels": "{feed: arrivals, column: arr_delay}",
    "estimator": "{type: sklearn.ensemble.HistGradientBoostingRegressor}",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"metric": "mean_absolute_error"}, ""),
        ({"metric": "roc_auc"}, "roc_auc is a metric of classification, and the task is regression"),
        ({"scoring": "{threshold: 0.5}"}, "a regression has no decision threshold"),
        ({"task": "{type: regression, positive: 1}"}, "a regression has no positive class"),
        (
            {"labels": "{feed: flights, column: carrier}"},
            'a regression predicts a number, and "carrier" is declared as string',
        ),
    ],
)
def test_regressions(message: Message, changes: dict[str, str], expected: str) -> None:
    said = message(**(REGRESSION | changes))
    assert expected in said if expected else said == ""


def test_a_short_holdout_is_fine_when_no_gate_counts_blocks(message: Message) -> None:
    assert message(training="{holdout: P7D}", gates="{champion: {mode: disabled}, baseline: {mode: disabled}}") == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"end": "2012-01-01"}, "end (2012-01-01) lies before start (2013-01-01)"),
        ({"key": "[flight_di]"}, '"flight_di" is not among the columns, did you mean "flight_id"?'),
        ({"key": "[flight_id, flight_id]"}, "is in the key twice"),
        ({"event_time": "departed"}, '"departed" is not among the columns'),
        ({"event_time": "carrier"}, 'event_time must be a timestamp, and "carrier" is declared as string'),
        ({"known_at": "hour"}, 'known_at must be a timestamp, and "hour" is declared as integer'),
        ({"retention": "PT1H"}, "retention.rows of PT1H keeps nothing: write at least P1D"),
        ({"retention": "{quarantine: PT1H}"}, "retention.quarantine of PT1H keeps nothing: write at least P1D"),
        ({"retention": "two years"}, "'two years' is not a duration"),
    ],
)
def test_feeds(specs: Folder, changes: dict[str, str], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_feed(specs.feed(**changes))
    assert expected in str(caught.value)


def test_retention_short_and_long(specs: Folder) -> None:
    short = load_feed(specs.feed(retention="P2Y")).retention
    assert (short.rows, short.quarantine) == (timedelta(days=730), timedelta(days=90))
    assert load_feed(specs.feed(retention="{reports: P30D}")).retention.rows is None
    model = load_model(specs.model(retention="{predictions: P1Y}")).retention
    assert (model.predictions, model.features) == (timedelta(days=365), None)


@pytest.mark.parametrize(
    ("arrivals", "model", "expected"),
    [
        ("P2Y", {}, ""),
        ("P14D", {}, '"arrivals" keeps P14D, and a training needs P16D of it (window, gap, holdout)'),
        ("P60D", {"training": "{window: P90D}"}, '"arrivals" keeps P60D, and a training needs P105D of it'),
    ],
)
def test_a_feed_keeps_what_a_training_needs(specs: Folder, arrivals: str, model: dict[str, str], expected: str) -> None:
    specs.feed(ARRIVALS, retention=arrivals)
    specs.feed(FLIGHTS)
    specs.model(**model)
    said = "".join(e.message for e in load_specs([specs.root]).errors)
    assert expected in said if expected else said == ""


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("partition", 'may not be called "partition"'),
        ("Digest", 'may not be called "Digest"'),
        ("inputs", 'may not be called "inputs"'),
        ("Carrier", "differ only in case"),
    ],
)
def test_column_names(specs: Folder, column: str, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_feed(specs.feed(FLIGHTS.replace("  hour: integer", f"  {column}: integer")))
    assert expected in str(caught.value)
    assert ":11:3: " in str(caught.value)


def test_a_float_is_no_key(specs: Folder) -> None:
    with pytest.raises(SpecError, match="floats cannot be compared exactly"):
        load_feed(specs.feed(FLIGHTS.replace("flight_id: string", "flight_id: float")))


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (
            ARRIVALS.replace("America/New_York", "UTC"),
            '"arrivals" counts days in UTC and "flights" in America/New_York',
        ),
        (ARRIVALS.replace("flight_id", "flight"), 'cannot be joined to "flights": it lacks the key column flight_id'),
        (ARRIVALS.replace("flight_id: string", "flight_id: integer"), "so they would never match"),
        (ARRIVALS.replace("late: integer", "late: timestamp"), "a class cannot be a timestamp"),
        (ARRIVALS.replace("late: integer", "late: string"), "the positive class is 1, and the label"),
    ],
)
def test_feeds_that_do_not_fit_are_an_error_of_the_model_alone(specs: Folder, arrivals: str, expected: str) -> None:
    specs.feed(arrivals)
    loaded = load_specs([specs.root])
    assert set(loaded.feeds) == {"flights", "arrivals"}
    assert [e.kind for e in loaded.errors] == ["model"]
    assert expected in loaded.errors[0].message


def test_helpers_of_a_model(specs: Folder) -> None:
    binary = load_model(specs.model(labels="{feed: arrivals, column: late, horizon: PT30H}"))
    arrivals = load_feed(specs.feed(ARRIVALS))
    assert binary.gap_partitions(arrivals) == 3
    assert binary.holdout_blocks(400, "day") == 14
    assert (binary.min_gain("champion"), binary.min_gain("baseline")) == (0.0, 0.0)
    regression = load_model(specs.model(**REGRESSION))
    assert regression.holdout_blocks(111, "day") == 14
    assert regression.holdout_blocks(112, "day") == 56
    assert (regression.min_gain("champion"), regression.min_gain("baseline")) == (0.01, 0.0)
    said = load_model(specs.model(training="{holdout: P21D, gap: P9D}", gates="{champion: {min_gain: 0.002}}"))
    assert (said.holdout_blocks(400, "day"), said.gap_partitions(arrivals)) == (21, 9)
    assert said.min_gain("champion") == 0.002


@pytest.mark.parametrize(
    "fine", ["0 6 1 * *", "*/15 0-6 1,15 jan-mar mon-fri", "@daily", "0 0 * * 7", "5/20 * 29 2 *", "0 0 31 2 1"]
)
def test_cron_that_works(fine: str) -> None:
    assert problem_with(fine) is None


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "@soon",
        "*-3 * * * *",
        "0 0 30 2 *",
        "٣ * * * *",
    ],
)
def test_cron_that_does_not(broken: str) -> None:
    assert problem_with(broken)


def test_slices_and_protected_columns_are_read(specs: Folder) -> None:
    specs.feed(FLIGHTS)
    specs.feed(ARRIVALS)
    sliced = "slices: [{by: hour, bins: [6, 12], minimum: {roc_auc: 0.6}}]"
    fair = "fairness: {by: [carrier, {column: hour, bins: [12]}]}"
    gates = load_model(specs.model(gates=f"{{{sliced}, {fair}}}")).gates
    assert gates.slices[0].minimum == {"roc_auc": 0.6} and gates.slices[0].max_harm == 0.01
    assert [c.column for c in gates.fairness.by] == ["carrier", "hour"] and gates.fairness.by[1].bins == [12]
    assert (gates.fairness.limit, gates.fairness.confidence, gates.fairness.min_count) == (0.1, 0.95, 30)
    assert len(gates.fairness.measures) == 3 and gates.fairness.stance == "audited"
    stances = {
        "{}": "undeclared", "{fairness: {not_applicable: no people}}": "not_applicable",
        "{fairness: {by: [carrier], mode: disabled}}": "off",
    }  # fmt: skip
    for text, stance in stances.items():
        assert load_model(specs.model(gates=text)).gates.fairness.stance == stance


@pytest.mark.parametrize(
    ("waive", "expected"),
    [
        ("[{item: code_commited, reason: r}]", 'did you mean "code_committed"?'),
        ("[{item: stage_checked}]", '"reason" is missing'),
        ("[{item: stage_checked, reason: a}, {item: stage_checked, reason: b}]", '"stage_checked" is waived twice'),
    ],
)
def test_a_waiver_names_an_item_of_the_checklist_once_and_says_why(message: Message, waive: str, expected: str) -> None:
    assert expected in message(waive=waive)
