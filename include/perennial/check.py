"""Does a spec work? Everything that can be said without data, before anything runs.

Reading a spec (``perennial.specs.loader``) finds what is wrong with its text. This module resolves what the text names:
the estimator and its parameters, the metric, the feature query over the feeds' declared columns, the expectations.
Heavy libraries are imported where they are needed, so that checking a feed does not wait for scikit-learn.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.errors import PerennialError, SpecError, UsageError
from perennial.settings import settings
from perennial.specs import grain_rules, source
from perennial.specs.feeds import FeedSpec
from perennial.specs.grains import GRAINS
from perennial.specs.loader import DEFAULTS, SpecSet, load_specs
from perennial.specs.models import ModelSpec
from perennial.specs.source import Document, Loc, Problem, SpecFileError, suggest

ROW_COUNT_RULES = ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal")
_COLUMN_KWARGS = ("column", "column_A", "column_B", "column_list", "column_set")
_NESTED = re.compile(r"\[\d*\]$|^(STRUCT|MAP|UNION|BLOB|struct<|map<|list<|large_list<|fixed_size|binary|large_binary)")
_RULE_KEYS = ("type", "kwargs", "severity")
_SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was found about one spec.

    :param messages: what is wrong; empty when ``ok``.
    :param notes: what could not be checked, and other things worth knowing.
    """

    path: Path
    ok: bool
    messages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_paths(paths: Iterable[Path] | None = None) -> list[CheckResult]:
    """Check specs.

    :param paths: files or folders; default, and for each folder, every spec in it.
    :raises UsageError: a path does not exist, or there is no spec in it.
    """
    specs, wanted = find(paths)
    results = [
        CheckResult(e.path, False, (e.message, *_blanks_beside(e.path))) for e in specs.errors if e.path in wanted
    ]
    for (kind, name), loaded in specs.sources.items():
        if loaded.path in wanted:
            if isinstance(loaded.spec, FeedSpec):
                results.append(check_feed(loaded.spec, specs.folder_of(kind, name), loaded.document))
            else:
                results.append(check_model(loaded.spec, specs))
    return sorted(results, key=lambda r: (r.path.parent, r.path))


def find(paths: Iterable[Path] | None = None) -> tuple[SpecSet, set[Path]]:
    """The specs around some paths, and the files that the paths mean.

    :raises UsageError: a path does not exist, or there is no spec in it.
    """
    given = [Path(p).absolute() for p in paths or settings().specs]
    files: set[Path] = set()
    for path in given:
        here = _files_of(path)
        if not here and (paths is not None or not path.exists()):
            what = "there is no spec in it" if path.exists() else "there is no such file or folder"
            raise UsageError(f"{source.shown(path)}: {what}")
        files |= here
    roots = list(dict.fromkeys(f.parent if f.name == DEFAULTS else f.parent.parent.parent for f in sorted(files)))
    ours = settings().specs
    specs = load_specs([*ours, *roots] if any(r in ours for r in roots) else roots)
    files |= {e.path for e in specs.errors if e.kind == "defaults" and e.path.parent in roots}
    return specs, files


def _files_of(path: Path) -> set[Path]:
    if path.is_dir():
        found = {p for name in ("feed.yaml", "model.yaml") for p in path.rglob(name) if _is_spec(p)}
        return found | {path / DEFAULTS} if found and (path / DEFAULTS).exists() else found
    if path.name in ("feed.yaml", "model.yaml", DEFAULTS):
        return {path} if path.exists() else set()
    beside = {path.parent / name for name in ("feed.yaml", "model.yaml")}
    return {p for p in beside if path.exists() and p.exists()}


def _is_spec(path: Path) -> bool:
    return path.parent.parent.name == f"{path.stem}s"


def _result(path: Path, messages: Iterable[str], notes: Iterable[str] = ()) -> CheckResult:
    found = tuple(messages)
    return CheckResult(path, not found, found, tuple(notes))


def _in(path: Path, line: int, message: str) -> str:
    return f"{source.shown(path)}:{line}: {message}"


def _blanks(path: Path) -> list[str]:
    """Blanks that ``perennial new`` left in a file that is not a spec."""
    if not path.is_file():
        return []
    lines = path.read_text("utf-8", "replace").splitlines()
    return [_in(path, n, f"a blank: {text.strip()}") for n, text in enumerate(lines, 1) if source.BLANK in text]


def _blanks_beside(path: Path) -> list[str]:
    """Blanks in the other files of a spec that is broken, so that one look shows them all."""
    names = ("expectations.yaml", "features.sql", "features.py", "README.md") if path.name != DEFAULTS else ()
    return [message for name in names for message in _blanks(path.parent / name)]


# --------------------------------------------------------------------------------------------------------------- feeds


def check_feed(feed: FeedSpec, folder: Path, document: Document) -> CheckResult:
    """Check a feed's expectations and its ``prepare.py``."""
    messages = list(_expectation_messages(feed, folder / feed.contract.expectations, document))
    messages += _prepare_messages(folder / "prepare.py")
    return _result(document.path, messages, grain_rules.notes(feed))


def _expectation_messages(feed: FeedSpec, path: Path, document: Document) -> Iterator[str]:
    if not path.is_file():
        place = ("contract", "expectations")
        message = f"there is no {path.name} beside it: every feed is validated, at least by its number of rows"
        yield str(document.error([Problem(message, place)]))
        return
    try:
        rules = source.read(path, "list")
    except SpecFileError as e:
        yield str(e)
        return
    problems = list(_rule_problems(feed, rules))
    if problems:
        yield str(rules.error(problems))


def _rule_problems(feed: FeedSpec, rules: Document) -> Iterator[Problem]:
    for loc in rules.blanks:
        yield Problem("a blank to fill in", loc)
    if rules.blanks:
        return
    counts = False
    for i, rule in enumerate(rules.data):
        if not isinstance(rule, dict) or not isinstance(rule.get("type"), str):
            yield Problem("a rule is {type: expect_..., kwargs: {...}, severity: critical}", (i,))
            continue
        problems = [*_rule_form(i, rule), *_rule_columns(feed, i, rule)]
        yield from problems or _rule_build(i, rule)
        kwargs = rule.get("kwargs") or {}
        least = kwargs.get("min_value", kwargs.get("value")) if isinstance(kwargs, dict) else None
        critical = rule.get("severity", "critical") == "critical"
        counts |= rule["type"] in ROW_COUNT_RULES and critical and isinstance(least, int) and least > 0
    if not counts:
        example = f"{{type: {ROW_COUNT_RULES[0]}, kwargs: {{min_value: 1}}}}"
        yield Problem(
            f"no critical rule counts the rows, and an empty partition passes every other rule: add {example}"
        )


def _rule_form(i: int, rule: Mapping[str, Any]) -> Iterator[Problem]:
    for key in rule:
        if key not in _RULE_KEYS:
            message = f'"{key}" is not known here{suggest(key, _RULE_KEYS)} (allowed: {", ".join(_RULE_KEYS)})'
            yield Problem(message, (i, key), on_key=True)
    severity = rule.get("severity", "critical")
    if severity not in _SEVERITIES:
        message = f'"{severity}" is not a severity{suggest(severity, _SEVERITIES)} (allowed: {", ".join(_SEVERITIES)})'
        yield Problem(message, (i, "severity"))
    if not isinstance(rule.get("kwargs", {}), dict):
        yield Problem("kwargs is a mapping of `key: value`", (i, "kwargs"))


def _rule_columns(feed: FeedSpec, i: int, rule: Mapping[str, Any]) -> Iterator[Problem]:
    kwargs = rule.get("kwargs")
    for key in _COLUMN_KWARGS if isinstance(kwargs, dict) else ():
        said = kwargs.get(key, []) if kwargs else []
        for column in said if isinstance(said, list) else [said]:
            if column not in feed.columns:
                hint = suggest(column, feed.columns)
                yield Problem(f'"{column}" is not a column of {feed.name}{hint}', (i, "kwargs", key))


def _rule_build(i: int, rule: Mapping[str, Any]) -> Iterator[Problem]:
    from perennial.contracts.expectations import build_rules

    try:
        build_rules([rule], "expectations")
    except SpecError as e:
        kind = rule["type"]
        names = _rule_names()
        if kind not in names:
            yield Problem(f"{kind} is not a rule of Great Expectations{suggest(kind, names)}", (i, "type"))
            return
        cause = e.__cause__
        details = cause.errors() if cause is not None and hasattr(cause, "errors") else []
        said = "; ".join(f"{'.'.join(map(str, d['loc'])) or 'kwargs'}: {d['msg']}" for d in details) or str(e)
        yield Problem(f"{kind} does not take these kwargs: {said}", (i, "kwargs"))


def _rule_names() -> list[str]:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    return list(list_registered_expectation_implementations())


def _prepare_messages(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError) as e:
        yield _in(path, getattr(e, "lineno", None) or 1, str(getattr(e, "msg", e)))
        return
    if not any(isinstance(node, ast.FunctionDef) and node.name == "prepare" for node in tree.body):
        yield _in(path, 1, "prepare.py must define prepare(frame) and return a DataFrame")


# -------------------------------------------------------------------------------------------------------------- models


def check_model(model: ModelSpec, specs: SpecSet) -> CheckResult:
    """Check what a model names: features, estimator, search space, metric."""
    loaded = specs.sources["model", model.name]
    folder, document = loaded.path.parent, loaded.document
    problems: list[Problem] = []
    notes: list[str] = []
    messages = _blanks(folder / model.features.path)
    columns: dict[str, str] = {}
    if not messages:
        try:
            columns = _feature_columns(model, folder, specs, notes)
            problems += _column_problems(model, specs, columns)
        except PerennialError as e:
            messages.append(str(e))
    messages += _blanks(folder / "README.md")
    notes += _silences(model, folder)
    problems += _estimator_problems(model, folder)
    problems += _metric_problems(model)
    if problems:
        messages.append(str(document.error(problems)))
    return _result(loaded.path, messages, notes)


def _silences(model: ModelSpec, folder: Path) -> Iterator[str]:
    """What the model leaves unsaid, and somebody will ask."""
    from perennial.training.readme import read_readme

    if read_readme(folder) is None:
        yield "there is no README.md beside it: the card of each version will say that nobody said what it is for"
    if model.gates.fairness.stance == "undeclared" and "bias_tested" not in {w.item for w in model.waive}:
        yield (
            "it says nothing about fairness, so its checklist cannot be met and no version is promoted: name protected "
            "columns (gates: {fairness: {by: [...]}}), or say why there are none ({fairness: {not_applicable: ...}})"
        )


def _note_untimed(feed: FeedSpec, model: ModelSpec, notes: list[str]) -> None:
    """Rows of the same partition can be cut by time only where they carry one."""
    at_once = feed.delay < GRAINS[feed.every].shortest and feed.name != model.entity
    if at_once and not (feed.event_time or feed.known_at):
        notes.append(
            f"{feed.name} has neither event_time nor known_at: its rows count as known from the start of their "
            f"{feed.every}; if they are not, declare one of them"
        )


def _feature_columns(model: ModelSpec, folder: Path, specs: SpecSet, notes: list[str]) -> dict[str, str]:
    """Names and types of what the feature definition yields over empty feeds.

    :raises SpecError: it does not bind, or reads feeds that are not there or do not fit.
    """
    from perennial.features.definition import load_definition

    path = folder / model.features.path
    try:
        definition = load_definition(model, folder, specs.feeds)
        for name in definition.feeds:
            _check_feed_fits(name, model, specs, path)
            _note_untimed(specs.feeds[name], model, notes)
        return dict(definition.describe(specs.feeds))
    except SpecError as e:
        raise SpecError(_placed(path, str(e))) from e
    except PerennialError as e:  # Python features may need rows
        notes.append(f"{source.shown(path)} could not be tried on empty frames: {e}")
        return {}
    except Exception as e:
        raise SpecError(_in(path, _line_of(e, path), f"{type(e).__name__}: {e}")) from e


def _check_feed_fits(name: str, model: ModelSpec, specs: SpecSet, path: Path) -> None:
    feed, entity = specs.feeds.get(name), specs.feeds[model.entity]
    line = _first_line(path, name)
    if feed is None:
        broken = [e.path for e in specs.errors if e.kind == "feed" and e.name == name]
        if broken:
            raise SpecError(_in(path, line, f'the feed "{name}" has errors of its own: see {source.shown(broken[0])}'))
        names = ", ".join(sorted(specs.feeds))
        hint = suggest(name, specs.feeds)
        raise SpecError(_in(path, line, f'it reads "{name}", and there is no such feed{hint} (feeds: {names})'))
    if (feed.every, feed.timezone) != (entity.every, entity.timezone):
        message = (
            f'"{name}" has partitions of {GRAINS[feed.every].one} in {feed.timezone} and "{entity.name}" of '
            f"{GRAINS[entity.every].one} in "
            f"{entity.timezone}: feeds of one model share grain and time zone, or their partitions would never meet"
        )
        raise SpecError(_in(path, line, message))


def _column_problems(model: ModelSpec, specs: SpecSet, columns: Mapping[str, str]) -> Iterator[Problem]:
    if not columns:
        return
    entity = specs.feeds[model.entity]
    place = ("features",)
    if model.labels.column in columns:
        yield Problem(f'{model.features.path} returns the label "{model.labels.column}": take it out', place)
    nested = [c for c, t in columns.items() if _NESTED.search(t)]
    if nested:
        message = (
            f"{model.features.path} returns {', '.join(nested)} as nested values: return numbers, text or truth values"
        )
        yield Problem(message, place)
    features = [c for c in columns if c not in entity.key and c != entity.event_time]
    for i, column in enumerate(model.gates.baseline.by):
        if column not in features:
            hint = suggest(column, features)
            message = f'"{column}" is not a feature{hint} (features: {", ".join(features)})'
            yield Problem(message, ("gates", "baseline", "by", i))
    known = [*features, *(c for c in entity.columns if c not in features)]
    gates = model.gates
    grouped: list[tuple[str, Loc]] = [(s.by, ("gates", "slices", i, "by")) for i, s in enumerate(gates.slices)]
    grouped += [(c.column, ("gates", "fairness", "by", i)) for i, c in enumerate(gates.fairness.by)]
    for column, loc in grouped:
        if column not in known:
            hint = suggest(column, known)
            message = f'"{column}" is neither a feature nor a column of {entity.name}{hint} (known: {", ".join(known)})'
            yield Problem(message, loc)


def _placed(path: Path, message: str) -> str:
    """A message about a feature file, with the file's path and the line that it speaks of."""
    text = message.removeprefix(str(path)).removeprefix(path.name).lstrip(":, ")
    match = re.match(r"line (\d+)(?:, column \d+)?: ", text)
    if match:
        return _in(path, int(match[1]), text[match.end() :])
    if text.startswith(source.shown(path)):
        return text
    match = re.search(r"^LINE (\d+): ", text, re.MULTILINE)
    shown = text.replace("DESCRIBE ", "", 1) if "LINE 1: DESCRIBE " in text else text
    return _in(path, int(match[1]) if match else 1, shown)


def _first_line(path: Path, word: str) -> int:
    lines = path.read_text("utf-8", "replace").splitlines()
    return next((n for n, text in enumerate(lines, 1) if re.search(rf"\b{re.escape(word)}\b", text)), 1)


def _line_of(error: BaseException, path: Path) -> int:
    """The last line of ``path`` in the error's traceback."""
    line, step = 1, error.__traceback__
    while step is not None:
        if Path(step.tb_frame.f_code.co_filename).name == path.name:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _estimator_problems(model: ModelSpec, folder: Path) -> Iterator[Problem]:
    kind, place = model.estimator.type, ("estimator", "type")
    try:
        factory = _resolve(kind, folder)
    except SpecError as e:
        yield Problem(str(e), place)
        return
    if not callable(factory):
        yield Problem(f"{kind} is not a class: write one such as sklearn.linear_model.LogisticRegression", place)
        return
    try:
        estimator = factory(**model.estimator.params)
    except TypeError as e:
        yield from _parameter_problems(model, factory, e)
        return
    except Exception as e:
        yield Problem(f"{kind} cannot be made: {type(e).__name__}: {e}", place)
        return
    if isinstance(estimator, type) or not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
        yield Problem(f"{kind} is not an estimator: it has no fit and predict", place)
        return
    yield from _role_problems(model, estimator)
    yield from _value_problems(model, estimator)
    yield from _space_problems(model, estimator)


def _resolve(kind: str, folder: Path) -> Any:
    """The class or factory that a spec names.

    :raises SpecError: with the nearest name, when there is one.
    """
    from perennial.training.estimators import resolve

    try:
        return resolve(kind, folder)
    except SpecError as e:
        if ".py:" in kind:
            raise
        raise SpecError(f"{kind} cannot be imported{_near_import(kind)}") from e
    except Exception as e:  # a pipeline.py that fails while it is imported
        file = folder / kind.partition(":")[0]
        raise SpecError(f"{_in(file, _line_of(e, file), f'{type(e).__name__}: {e}')}") from e


def _near_import(kind: str) -> str:
    import importlib

    module, _, name = kind.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError as e:
        return f": {e}"
    names = [n for n in (*getattr(found, "__all__", ()), *dir(found)) if not n.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f', did you mean "{module}.{close[0]}"?' if close else ""
    return f": {module} has no {name}{hint}"


def _parameter_problems(model: ModelSpec, factory: Any, error: TypeError) -> Iterator[Problem]:
    import inspect

    names = [n for n in inspect.signature(factory).parameters if n != "self"]
    unknown = [p for p in model.estimator.params if p not in names]
    for name in unknown:
        message = f'{model.estimator.type} has no parameter "{name}"{suggest(name, names)}'
        yield Problem(message, ("estimator", "params", name), on_key=True)
    if not unknown:
        yield Problem(f"{model.estimator.type}: {error}", ("estimator", "params"))


def _role_problems(model: ModelSpec, estimator: Any) -> Iterator[Problem]:
    from sklearn.base import is_classifier, is_regressor

    task, kind = model.task.type, model.estimator.type
    if task == "regression" and is_classifier(estimator):
        yield Problem(f"{kind} is a classifier, and the task is regression", ("estimator", "type"))
    elif task != "regression" and is_regressor(estimator):
        yield Problem(f"{kind} is a regressor, and the task is {task}", ("estimator", "type"))
    elif task != "regression" and not hasattr(estimator, "predict_proba"):
        message = f"{kind} gives no probabilities: wrap it in CalibratedClassifierCV in pipeline.py:build"
        yield Problem(message, ("estimator", "type"))


def _value_problems(model: ModelSpec, estimator: Any) -> Iterator[Problem]:
    """Values that scikit-learn itself would refuse at fit time."""
    validate = getattr(estimator, "_validate_params", None)
    if validate is None:
        return
    try:
        validate()
    except ValueError as e:
        name = next((p for p in model.estimator.params if f"'{p}'" in str(e)), None)
        yield Problem(str(e), ("estimator", "params", name) if name else ("estimator",))


def _space_problems(model: ModelSpec, estimator: Any) -> Iterator[Problem]:
    names = list(estimator.get_params()) if hasattr(estimator, "get_params") else None
    for name in model.search.space if names is not None else ():
        if name not in (names or ()):
            message = f'{model.estimator.type} has no parameter "{name}"{suggest(name, names or ())}'
            yield Problem(message, ("search", "space", name), on_key=True)


def _metric_problems(model: ModelSpec) -> Iterator[Problem]:
    from perennial.gates.metrics import get_metric

    names: list[tuple[str, Loc]] = [(model.metric.name, ("metric", "name"))]
    names += [(n, ("gates", "floor", "minimum", n)) for n in model.gates.floor.minimum]
    for i, part in enumerate(model.gates.slices):
        names += [(n, ("gates", "slices", i, "minimum", n)) for n in part.minimum]
    for name, place in names:
        try:
            get_metric(name, model.task.type)
        except SpecError as e:
            yield Problem(str(e), place)
