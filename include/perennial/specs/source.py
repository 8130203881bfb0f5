"""YAML with places: every key and value of a file remembers its line and column.

Only what JSON can say is accepted (text, numbers, true/false, null, lists, mappings with text keys), because specs are
digested, stored and compared as JSON. Words that YAML 1.1 and 1.2 read differently (``yes``, ``off``, ``012``) are
refused instead of guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from perennial.errors import SpecError

Loc = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, both from 1

MAX_BYTES = 256_000
BLANK = "<fill in"  # what `perennial new` leaves for people to replace

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_AMBIGUOUS_NUMBER = re.compile(r"[-+]?(0[0-9]+|0[xob][0-9a-fA-F_]+|[0-9]+(_[0-9]+)+)")
_TRUE, _FALSE, _NULL = {"true", "True", "TRUE"}, {"false", "False", "FALSE"}, {"", "~", "null", "Null", "NULL"}
_AMBIGUOUS_WORD = {"yes", "no", "on", "off"}
_STANDARD_TAGS = {
    f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
_DEEP = 1000  # the C parser has no guard of its own against deep nesting, so a deep file goes to the Python one
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (a path inside the document, or a line and column) and what to do."""

    message: str
    loc: Loc = ()
    on_key: bool = False
    place: Place | None = None


class SpecFileError(SpecError):
    """A file of a spec is wrong. The message lists every problem with file, line, column, and the line itself.

    ``path`` is the file; ``problems`` are the problems, without the file's text.
    """

    def __init__(self, path: Path, text: str, problems: Sequence[tuple[Place, str]]) -> None:
        self.path = path
        self.problems = sorted(problems)
        lines = _BREAK.split(text)
        super().__init__("\n".join(_show(path, lines, place, message) for place, message in self.problems))


def shown(path: Path) -> str:
    """The path as people type it: relative to the working directory when it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _show(path: Path, lines: list[str], place: Place, message: str) -> str:
    """``file:line:column: message``, then the line with a caret under the place."""
    number, column = place
    head = f"{shown(path)}:{number}:{column}: {message}"
    if not 1 <= number <= len(lines) or not lines[number - 1].strip():
        return head
    line = "".join(c if c.isprintable() else " " for c in lines[number - 1])
    at = min(column - 1, len(line))
    if len(line) > 110:
        cut = max(0, at - 50)
        line, at = line[cut : cut + 110], at - cut
    gutter = f"  {number} | "
    return f"{head}\n{gutter}{line.rstrip()}\n{' ' * (len(gutter) - 2)}| {' ' * at}^"


def suggest(word: object, allowed: Iterable[str]) -> str:
    """``', did you mean "roc_auc"?'`` when something allowed is close to the word, else nothing."""
    close = difflib.get_close_matches(str(word).lower(), list(allowed), n=1, cutoff=0.6)
    return f', did you mean "{close[0]}"?' if close else ""


@dataclass
class Document:
    """A parsed file: plain data, and the place of every key and value in it."""

    path: Path
    text: str
    data: Any = None
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)
    blanks: set[Loc] = field(default_factory=set)

    def place(self, loc: Loc, *, on_key: bool = False) -> Place:
        """Where ``loc`` stands in the file; the nearest thing around it when the file does not say it itself."""
        first, second = (self.keys, self.values) if on_key else (self.values, self.keys)
        while loc:
            for places in (first, second):
                if loc in places:
                    return places[loc]
            if "minimum" in loc:  # gates.floor.roc_auc is short for gates.floor.minimum.roc_auc
                shorter = tuple(part for part in loc if part != "minimum")
                if shorter in self.values:
                    loc = shorter
                    continue
            loc = loc[:-1]
            # A single value is a short form and holds what is meant; else something is missing below this key.
            first, second = (self.keys, self.values) if self._holds_more(loc) else (self.values, self.keys)
        return (1, 1)

    def _holds_more(self, loc: Loc) -> bool:
        value = self.data
        try:
            for part in loc:
                value = value[part]
        except (KeyError, IndexError, TypeError):
            return True
        return isinstance(value, (dict, list))

    def error(self, problems: Iterable[Problem]) -> SpecFileError:
        """The problems as one exception."""
        placed = {(p.place or self.place(p.loc, on_key=p.on_key), p.message) for p in problems}
        return SpecFileError(self.path, self.text, sorted(placed))


def read(path: Path, shape: Literal["mapping", "list"] = "mapping") -> Document:
    """Read and parse a file.

    :param shape: what the file must hold.
    :raises SpecFileError: with one problem for each thing that is wrong with the YAML itself.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SpecFileError(path, "", [((1, 1), "there is no such file")]) from None
    except OSError as e:
        raise SpecFileError(path, "", [((1, 1), f"the file cannot be read: {e.strerror or e}")]) from None
    return parse(path, raw, shape)


def parse(path: Path, raw: bytes | str, shape: Literal["mapping", "list"] = "mapping") -> Document:
    """Parse the content of a file (see :func:`read`)."""
    document = Document(path, raw if isinstance(raw, str) else _decode(path, raw))
    text = document.text
    if len(text) > MAX_BYTES:
        raise SpecFileError(
            path, "", [((1, 1), f"the file has {len(text):,} characters; a spec has at most {MAX_BYTES:,}")]
        )
    node = _compose(document)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value in _NULL and not node.style):
        raise SpecFileError(
            path, text, [((1, 1), "the file is empty: a spec begins with `version: 1` and `name: ...`")]
        )
    if not isinstance(node, yaml.MappingNode if shape == "mapping" else yaml.SequenceNode):
        wanted = "a mapping of `key: value` lines" if shape == "mapping" else "a list, each entry after a `-`"
        raise SpecFileError(path, text, [(_place(node), f"the file must hold {wanted}, and holds {_kind(node)}")])
    walk = _Walk(document)
    data = walk.value(node, ())
    if walk.problems:
        raise SpecFileError(path, text, walk.problems)
    document.data = data
    return document


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise SpecFileError(path, "", [((1, 1), "the file is UTF-16: save it as UTF-8")]) from None
        before = raw[: e.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"the file is not UTF-8 (byte 0x{raw[e.start]:02x}): save it as UTF-8"
        raise SpecFileError(path, raw.decode("utf-8", "replace"), [((line, column), message)]) from None


def _compose(document: Document) -> yaml.Node | None:
    text = document.text
    depth = text.count("[") + text.count("{") + 2 * max(map(len, _BREAK.split(text)))
    parser = _PARSER if depth < _DEEP else yaml.SafeLoader
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=parser)
    except yaml.YAMLError as e:
        raise SpecFileError(document.path, text, [_syntax(text, e)]) from None
    except RecursionError:
        raise SpecFileError(document.path, "", [((1, 1), "the file is nested too deeply for a spec")]) from None
    except ValueError as e:
        raise SpecFileError(document.path, "", [((1, 1), f"the file is not YAML: {e}")]) from None
    return node


def _syntax(text: str, error: yaml.YAMLError) -> tuple[Place, str]:
    """What a YAML error means, in words for people who did not write a YAML parser."""
    if isinstance(error, yaml.reader.ReaderError):
        before = _BREAK.split(text[: error.position])
        return (len(before), len(before[-1]) + 1), "a control character that YAML does not allow: delete it"
    if not isinstance(error, yaml.MarkedYAMLError):
        return (1, 1), f"the file is not YAML: {error}"
    mark = error.problem_mark or error.context_mark
    place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = _BREAK.split(text)
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    problem = error.problem or "this is not YAML"
    if line[: place[1]].strip(" \t") == "" and "\t" in line[: place[1]]:
        return place, "a tab at the beginning of a line: YAML indents with spaces only"
    if "mapping values are not allowed" in problem:
        return place, "a colon where YAML expects none: put text that holds `: ` in quotes, or check the indentation"
    if "another document" in problem:
        return place, "a second document begins here: a file holds one spec, so delete this `---`"
    if "cannot start any token" in problem:
        return place, f"a value cannot begin with {line[place[1] - 1 : place[1]]!r}: put it in quotes"
    if "undefined alias" in problem:
        return place, "`*` begins an alias, which specs do not use: put the text in quotes"
    if "quoted scalar" in (error.context or "") and error.context_mark:
        mark = error.context_mark
        return (mark.line + 1, mark.column + 1), "this quote is never closed"
    context = f" {error.context}" if error.context else ""
    return place, f"this is not YAML: {problem}{context}"


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


class _Walk:
    """Turns nodes into plain data and collects what is wrong on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[tuple[Place, str]] = []
        self.seen: set[int] = set()

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.document.values[loc] = _place(node)
        if id(node) in self.seen:
            self.problems.append(
                (_place(node), "anchors and aliases (`&`, `*`) are not used in specs: write the value out")
            )
            return None
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:seq":
                self.problems.append((_place(node), f"the tag {_tag(node)} is not used in specs: delete it"))
            return [self.value(item, (*loc, i)) for i, item in enumerate(node.value)]
        return self.scalar(node, loc) if isinstance(node, yaml.ScalarNode) else None

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            self.problems.append((_place(node), f"the tag {_tag(node)} is not used in specs: delete it"))
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append((_place(key_node), "a key must be plain text, not a list or a mapping"))
                continue
            key: str = key_node.value
            if not key_node.style and (_INT.fullmatch(key) or _FLOAT.fullmatch(key)):
                self.problems.append(
                    (_place(key_node), f"the key {key} is a number, and keys are text: put it in quotes")
                )
            if key in data:
                first = self.document.keys[(*loc, key)]
                self.problems.append((_place(key_node), f'"{key}" is said twice, first in line {first[0]}: delete one'))
                continue
            self.document.keys[(*loc, key)] = _place(key_node)
            if BLANK in key:
                self.document.blanks.add((*loc, key))
            data[key] = self.value(value_node, (*loc, key))
        return data

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        text: str = node.value
        if BLANK in text:
            self.document.blanks.add(loc)
            return text
        if node.style:
            return text
        if node.tag not in _STANDARD_TAGS:
            self.problems.append((_place(node), f"the tag {_tag(node)} is not used in specs: delete it"))
            return None
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text.lower() in _AMBIGUOUS_WORD:
            message = (
                f'"{text}" is text to some readers of YAML and true or false to others: write true, false or "{text}"'
            )
            self.problems.append((_place(node), message))
            return None
        if _NOT_A_NUMBER.fullmatch(text):
            self.problems.append((_place(node), f"{text} is not a number that a spec can hold"))
            return None
        if _AMBIGUOUS_NUMBER.fullmatch(text):
            message = (
                f"readers of YAML disagree about the number {text}: write it in plain decimal digits, or in quotes"
            )
            self.problems.append((_place(node), message))
            return None
        if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
            return self.number(node)
        return text

    def number(self, node: yaml.ScalarNode) -> int | float | None:
        text: str = node.value
        if _INT.fullmatch(text) and len(text) <= 19:
            return int(text)
        value = float(text)
        if len(text) > 40 or abs(value) > 1e300 or _INT.fullmatch(text):
            self.problems.append((_place(node), f"the number {text[:20]}{'...' * (len(text) > 20)} is absurdly large"))
            return None
        return value


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")
