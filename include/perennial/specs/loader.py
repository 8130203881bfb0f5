"""From folders of YAML to checked specs, with errors that say file, line, column and what to write instead.

A folder of specs holds ``feeds/<name>/feed.yaml``, ``models/<name>/model.yaml`` and, if wanted, ``defaults.yaml`` with
what they share. One broken file never stops the others.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from perennial.errors import SpecError, UsageError
from perennial.settings import settings
from perennial.specs import grain_rules, rules, source
from perennial.specs.feeds import FeedSpec
from perennial.specs.models import ModelSpec
from perennial.specs.source import Document, Loc, Problem, SpecFileError, suggest
from perennial.specs.values import Integer, Prefix, Strict, Text, Texts

Kind = Literal["feed", "model"]
Spec = FeedSpec | ModelSpec

FILES: dict[Kind, str] = {"feed": "feeds/*/feed.yaml", "model": "models/*/model.yaml"}
DEFAULTS = "defaults.yaml"
_CLASSES: dict[Kind, type[FeedSpec] | type[ModelSpec]] = {"feed": FeedSpec, "model": ModelSpec}


class Defaults(Strict):
    """``defaults.yaml``: what the specs of one folder share. A key that a feed does not have applies to models only."""

    owner: Text | None = None
    dag_prefix: Prefix | None = None
    tags: Texts | None = None
    pool: Text | None = None
    queue: Text | None = None
    retries: Integer | None = None


@dataclass(frozen=True, slots=True)
class SpecFailure:
    """A file that could not be used, and why."""

    path: Path
    name: str
    kind: Literal["feed", "model", "defaults"]
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec with the file that it came from."""

    spec: Spec
    document: Document

    @property
    def path(self) -> Path:
        return self.document.path


@dataclass
class SpecSet:
    """All specs of some folders: the good ones by name, and what is wrong with the others."""

    feeds: dict[str, FeedSpec] = field(default_factory=dict)
    models: dict[str, ModelSpec] = field(default_factory=dict)
    errors: list[SpecFailure] = field(default_factory=list)
    #: Specs that are broken at present and stand here as they last were good: (kind, name).
    stale: set[tuple[Kind, str]] = field(default_factory=set)
    sources: dict[tuple[Kind, str], Loaded] = field(default_factory=dict, repr=False)
    #: Names of all feeds that have a file, good or not, read or not.
    feed_names: set[str] = field(default_factory=set, repr=False)

    def path_of(self, kind: Kind, name: str) -> Path:
        """The file that a spec came from."""
        self._get(kind, name)
        return self.sources[kind, name].path

    def folder_of(self, kind: Kind, name: str) -> Path:
        """The folder that a spec lies in, with its SQL, its expectations and so on."""
        return self.path_of(kind, name).parent

    def feed(self, name: str) -> FeedSpec:
        """A feed by name.

        :raises SpecError: it exists and is broken. :raises UsageError: there is none of that name.
        """
        spec = self._get("feed", name)
        assert isinstance(spec, FeedSpec)
        return spec

    def model(self, name: str) -> ModelSpec:
        """A model by name.

        :raises SpecError: it exists and is broken. :raises UsageError: there is none of that name.
        """
        spec = self._get("model", name)
        assert isinstance(spec, ModelSpec)
        return spec

    def _get(self, kind: Kind, name: str) -> Spec:
        known: Mapping[str, Spec] = self.feeds if kind == "feed" else self.models
        if name in known:
            return known[name]
        broken = [e.message for e in self.errors if e.kind == kind and e.name == name]
        if broken:
            raise SpecError("\n".join(broken))
        names = ", ".join(sorted(known)) or "none"
        raise UsageError(f'there is no {kind} "{name}"{suggest(name, known)} ({kind}s: {names})')


# ------------------------------------------------------------------------------------------------------------ one file


def load_feed(path: Path) -> FeedSpec:
    """Read one feed.

    :raises SpecError: listing everything that is wrong with the file.
    """
    spec = _read("feed", path).spec
    assert isinstance(spec, FeedSpec)
    return spec


def load_model(path: Path) -> ModelSpec:
    """Read one model, without looking at its feeds.

    :raises SpecError: listing everything that is wrong with the file.
    """
    spec = _read("model", path).spec
    assert isinstance(spec, ModelSpec)
    return spec


def parse_spec(kind: Kind, path: Path, text: str | bytes, defaults: Mapping[str, Any] | None = None) -> Loaded:
    """Check the text of a spec that lies, or once lay, at ``path``.

    :raises SpecError: listing everything that is wrong with it.
    """
    return _validate(kind, source.parse(path, text), defaults or {})


def read_defaults(folder: Path) -> dict[str, Any]:
    """What ``defaults.yaml`` of a folder of specs says; nothing when there is no such file.

    :raises SpecError: listing everything that is wrong with the file.
    """
    path = folder / DEFAULTS
    if not path.exists():
        return {}
    document = source.read(path)
    problems = [Problem("a blank to fill in", loc) for loc in document.blanks]
    try:
        Defaults.model_validate(document.data)
    except ValidationError as e:
        problems += _translate(e, Defaults, "model")
    if problems:
        raise document.error(problems)
    return dict(document.data)


def _read(kind: Kind, path: Path, defaults: Mapping[str, Any] | None = None) -> Loaded:
    path = Path(path).absolute()
    if defaults is None:
        try:
            defaults = read_defaults(path.parent.parent.parent)
        except SpecFileError as e:
            raise SpecError(f"{source.shown(path)}:1:1: the defaults of its folder are broken:\n{e}") from None
    return _validate(kind, source.read(path), defaults)


def _validate(kind: Kind, document: Document, defaults: Mapping[str, Any]) -> Loaded:
    cls = _CLASSES[kind]
    said = _copy(document.data)
    problems = [_blank(document, loc) for loc in document.blanks]
    problems += rules.not_yet(kind, said)
    merged = {k: v for k, v in defaults.items() if k in cls.model_fields} | said
    spec: Spec | None = None
    try:
        spec = cls.model_validate(merged)
    except ValidationError as e:
        problems += _translate(e, cls, kind)
    except (RecursionError, OverflowError) as e:
        problems.append(Problem(f"the file cannot be read as a {kind}: {e}"))
    name, folder = said.get("name"), document.path.parent.name
    if isinstance(name, str) and name != folder and ("name",) not in document.blanks:
        problems.append(
            Problem(f'name must equal the folder: "{name}" lies in "{folder}"; rename one of them', ("name",))
        )
    if spec is not None:
        problems += rules.feed_rules(spec) if isinstance(spec, FeedSpec) else rules.model_rules(spec)
    blanks = document.blanks
    problems = [p for p in problems if p.message.startswith("a blank") or not any(p.loc[: len(b)] == b for b in blanks)]
    if problems or spec is None:
        raise document.error(problems)
    return Loaded(spec, document)


def _blank(document: Document, loc: Loc) -> Problem:
    value = document.data
    for part in loc:
        value = value[part]
    on_key = isinstance(loc[-1], str) and source.BLANK in loc[-1]
    return Problem(f"a blank: replace {loc[-1] if on_key else value}", loc, on_key=on_key)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------- pydantic's errors, in our words


def _translate(error: ValidationError, cls: type[BaseModel], kind: Kind) -> Iterator[Problem]:
    items = error.errors(include_url=False)
    meant = set()  # keys that are missing because they are misspelt
    for item in items:
        if item["type"] == "extra_forbidden":
            at, word = tuple(item["loc"][:-1]), str(item["loc"][-1]).lower()
            meant |= {(*at, close) for close in difflib.get_close_matches(word, _fields(cls, at), n=1)}
    for item in items:
        if item["type"] == "missing" and tuple(item["loc"]) in meant:
            continue
        loc: Loc = tuple(item["loc"])
        if loc and loc[-1] == "[key]":
            loc = loc[:-1]
        what, ctx, value = item["type"], item.get("ctx", {}), item["input"]
        on_key = False
        if what == "extra_forbidden":
            allowed = _fields(cls, loc[:-1])
            hint = suggest(loc[-1], allowed)
            message = f'"{loc[-1]}" is not known here{hint} (allowed: {", ".join(allowed)})'
            on_key = True
        elif what == "missing":
            holder = _model_at(cls, loc[:-1])
            about = holder.model_fields[str(loc[-1])].description if holder else None
            message = f'"{loc[-1]}" is missing' + (f": {about[0].lower()}{about[1:]}" if about else "")
            on_key = True
        elif what in ("literal_error", "enum"):
            today = rules.allowed_today(kind, loc)
            choices = (
                [str(c) for c in today] if today else re.findall(r"'([^']*)'", ctx["expected"]) or [ctx["expected"]]
            )
            message = f"{_say(value)} is not allowed here{suggest(value, choices)} (allowed: {', '.join(choices)})"
        elif what == "value_error":
            message = str(ctx["error"])
        else:
            message = _expected(what, ctx, value, loc)
        yield Problem(message, loc, on_key=on_key)


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, such as [a, b]",
    "dict_type": "a mapping of `key: value`",
    "model_type": "a mapping of `key: value`",
    "model_attributes_type": "a mapping of `key: value`",
}


def _expected(what: str, ctx: Mapping[str, Any], value: Any, loc: Loc) -> str:
    if what in _EXPECTED:
        return f"{_say(value)} stands where {_EXPECTED[what]} is expected"
    limits = {"greater_than": "above {gt:g}", "greater_than_equal": "{ge:g} or more", "less_than": "below {lt:g}"}
    limits["less_than_equal"] = "{le:g} or less"
    if what in limits:
        return f"{value} is out of range: write a number that is {limits[what].format(**ctx)}"
    if what == "too_short":
        return "this must not be empty"
    if what == "string_pattern_mismatch":
        example = _EXAMPLES.get(loc, "")
        return f"{value!r} is not of the form that is expected here{example}"
    return f"{_say(value)}: {what.replace('_', ' ')}"


_EXAMPLES: dict[Loc, str] = {
    ("estimator", "type"): ": write an importable class such as sklearn.linear_model.LogisticRegression, "
    "or pipeline.py:build for a function in the model's folder",
    ("dag_prefix",): ": letters, digits, _, - and .",
}


def _say(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f'"{value}"' if isinstance(value, str) and len(value) < 60 else str(value)[:60]


def _model_at(cls: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model class that describes the mapping at ``loc``."""
    current: type[BaseModel] | None = cls
    for part in loc:
        info = current.model_fields.get(str(part)) if current else None
        current = next(_models_in(info.annotation), None) if info else None
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _fields(cls: type[BaseModel], loc: Loc) -> list[str]:
    model = _model_at(cls, loc)
    return [f for f in model.model_fields if (model.__name__, f) != ("Training", "weight")] if model else []


# ----------------------------------------------------------------------------------------------------------- many files


def load_specs(folders: Iterable[Path] | None = None, *, only: str | None = None) -> SpecSet:
    """Read all feeds and models of the folders (default: those of the settings).

    :param only: read just the model of this name with the feeds that it names, or the feed of this name.
    """
    return _load(folders, only, None)


def load_live_specs(
    folders: Iterable[Path] | None = None, *, only: str | None = None, memory: Path | None = None
) -> SpecSet:
    """Like :func:`load_specs`, and a spec that is broken now stands as it last was good (see ``stale``).

    Its error is still in ``errors``. Good specs are remembered. For DAG files: a slip in a spec must not make the
    DAGs of a model vanish.
    """
    from perennial.specs.memory import home, remember

    memory = memory or home()
    specs = _load(folders, only, memory)
    remember(specs, memory)
    return specs


def _load(folders: Iterable[Path] | None, only: str | None, memory: Path | None) -> SpecSet:
    roots = [Path(f).absolute() for f in (settings().specs if folders is None else folders)]
    roots = list(dict.fromkeys(roots))
    specs = SpecSet(feed_names={path.parent.name for root in roots for path in root.glob(FILES["feed"])})
    defaults = {root: _defaults_of(root, specs) for root in roots}
    wanted = None if only is None else _wanted(roots, only, specs.feed_names)
    for kind in ("feed", "model"):
        files: dict[str, list[tuple[Path, Path]]] = {}
        for root in roots:
            for path in _files(root, kind, wanted):
                files.setdefault(path.parent.name, []).append((root, path))
        for name in sorted(files):
            _one(kind, name, files[name], defaults, specs, memory)
    return specs


def _defaults_of(root: Path, specs: SpecSet) -> dict[str, Any] | None:
    try:
        return read_defaults(root)
    except SpecError as e:
        specs.errors.append(SpecFailure(root / DEFAULTS, "", "defaults", str(e)))
        return None


def _files(root: Path, kind: Kind, wanted: dict[Kind, set[str]] | None) -> list[Path]:
    if wanted is None:
        return sorted(root.glob(FILES[kind]))
    paths = (root / FILES[kind].replace("*", name) for name in sorted(wanted[kind]))
    return [p for p in paths if p.is_file()]


def _wanted(roots: list[Path], only: str, names: set[str]) -> dict[Kind, set[str]]:
    """Names of the specs that one model or feed needs: every feed whose name occurs in the model's own files."""
    if not re.fullmatch(r"\w+", only):
        return {"feed": set(), "model": set()}
    words: set[str] = set()
    for folder in (root / "models" / only for root in roots):
        for path in (p for p in folder.glob("*") if p.suffix in (".yaml", ".sql", ".py") and p.is_file()):
            words |= set(re.findall(r"\w+", path.read_text("utf-8", "replace")))
    return {"feed": (names & words) | {only}, "model": {only}}


def _one(
    kind: Kind,
    name: str,
    files: list[tuple[Path, Path]],
    defaults: Mapping[Path, dict[str, Any] | None],
    specs: SpecSet,
    memory: Path | None,
) -> None:
    """Read the spec of one name into ``specs``, or say why not."""
    for root, path in files:
        try:
            if len(files) > 1:
                twins = " and ".join(source.shown(p) for _, p in files)
                raise SpecError(f'{source.shown(path)}:1:1: two {kind}s are called "{name}": {twins}; rename one')
            shared = defaults[root]
            if shared is None:
                raise SpecError(
                    f"{source.shown(path)}:1:1: {source.shown(root / DEFAULTS)} is broken: see its own error"
                )
            loaded = _with_feeds(_read(kind, path, shared), specs)
        except SpecError as e:
            specs.errors.append(SpecFailure(path, name, kind, str(e)))
            old = _recall(kind, path, specs, memory)
            if old is None or (kind, name) in specs.sources:
                continue
            loaded = old
            specs.stale.add((kind, name))
        specs.sources[kind, name] = loaded
        if isinstance(loaded.spec, FeedSpec):
            specs.feeds[name] = loaded.spec
        else:
            specs.models[name] = loaded.spec


def _recall(kind: Kind, path: Path, specs: SpecSet, memory: Path | None) -> Loaded | None:
    if memory is None:
        return None
    from perennial.specs.memory import recall

    loaded = recall(kind, path, memory)
    if loaded is not None:
        try:
            return _with_feeds(loaded, specs)
        except SpecError:
            return None
    return None


def _with_feeds(loaded: Loaded, specs: SpecSet) -> Loaded:
    """A spec that fits the feeds that it names, with the defaults that follow from them.

    :raises SpecError: listing everything that does not fit.
    """
    if isinstance(loaded.spec, FeedSpec):
        return loaded
    entity = specs.feeds.get(loaded.spec.entity)
    if entity is not None:
        loaded = replace(loaded, spec=grain_rules.with_defaults(loaded.spec, entity))
    broken = {e.name: source.shown(e.path) for e in specs.errors if e.kind == "feed" and e.name not in specs.feeds}
    assert isinstance(loaded.spec, ModelSpec)
    problems = list(rules.joint_rules(loaded.spec, specs.feeds, broken, specs.feed_names))
    if problems:
        raise loaded.document.error(problems)
    return loaded


def digest(spec: Spec) -> str:
    """sha256 of what the spec says, with all defaults: comments, order of keys and line breaks change nothing."""
    canonical = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def remember(specset: SpecSet, folder: Path | None = None) -> None:
    """Keep the text of every good spec (see :mod:`perennial.specs.memory`)."""
    from perennial.specs.memory import home
    from perennial.specs.memory import remember as keep

    keep(specset, folder or home())


def last_good(path: Path, folder: Path | None = None) -> Spec | None:
    """The spec at ``path`` as it last was good, or None (see :mod:`perennial.specs.memory`)."""
    from perennial.specs.memory import home, recall

    kind: Kind = "feed" if Path(path).name == "feed.yaml" else "model"
    loaded = recall(kind, Path(path), folder or home())
    return loaded.spec if loaded else None
