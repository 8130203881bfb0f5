"""A canonical digest of a fitted estimator: what it has learnt, however a file stores it.

Two fits are the same when their digests are, in any process. The digest is taken of parameters and fitted attributes
(arrays by type, shape and bytes; nested objects by what pickle would keep of them; boosters by their own model text),
never of addresses, times or thread counts, and not of the bytes of a skops file, which differ with every dump.
"""

from __future__ import annotations

import copyreg
import enum
import hashlib
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Attributes that say where and how loudly something ran, or by which release it was written: not what was learnt.
_CIRCUMSTANCES = frozenset(
    {"_sklearn_version", "n_jobs", "n_threads", "nthread", "num_threads", "refit_time_", "thread_count", "verbose"}
)
_TIMES = re.compile(r"^(mean|std)_(fit|score)_time$")
#: At most about so many parts are told apart.
_PARTS = 500


@dataclass(frozen=True)
class State:
    """What a fitted estimator holds.

    :param sha256: hex digest of all of it.
    :param parts: path of each part -> the first 16 hex digits of its digest, to say where two states differ.
    :param packages: top-level packages of the classes that it is made of.
    """

    sha256: str
    parts: Mapping[str, str]
    packages: tuple[str, ...]


def fitted_state(model: Any) -> State:
    """Walk a fitted estimator.

    :raises TypeError: when it holds something that has no state to speak of: an open file, a lock, a cyclic pickle.
    """
    walk = _Walk()
    try:
        root = walk.node(model)
    except RecursionError:
        raise TypeError(f"{type(model).__name__} is nested too deeply") from None
    parts = {path or ".": node.digest.hex()[:16] for path, node in _parts(root)}
    return State(root.digest.hex(), parts, tuple(sorted(walk.packages)))


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Paths of parts that are not the same in both states, in the first one's order."""
    return [p for p in [*one, *(q for q in other if q not in one)] if one.get(p) != other.get(p)]


class _Node:
    """The digest of a value and the values in it."""

    __slots__ = ("children", "digest")

    digest: bytes
    children: tuple[tuple[str, _Node], ...]

    def __init__(self, kind: str, *parts: bytes, children: Iterable[tuple[str, _Node]] = ()) -> None:
        self.children = tuple(children)
        sha = hashlib.sha256(_framed(kind.encode()))
        for part in parts:
            sha.update(_framed(part))
        for name, child in self.children:
            sha.update(_framed(name.encode()))
            sha.update(child.digest)
        self.digest = sha.digest()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def _parts(root: _Node) -> list[tuple[str, _Node]]:
    """The tree cut at the deepest level that still has few enough parts."""
    level = [("", root)]
    while True:
        deeper = [(path + name, child) for path, node in level for name, child in (node.children or (("", node),))]
        if len(deeper) > _PARTS or not any(node.children for _, node in level):
            return level
        level = deeper


def _scalar(value: Any) -> bytes | None:
    """A value without parts as bytes; numpy's scalars are Python's. ``None``: it has parts."""
    if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
        value = value.item()
    kind = type(value)
    text: str | None = None
    if value is None or kind in (bool, int, complex):
        text = repr(value)
    elif kind is float:
        text = value.hex()
    elif kind is str:
        return b"str " + str(value).encode("utf-8", "surrogatepass")
    elif kind in (bytes, bytearray):
        return b"bytes " + bytes(value)
    return None if text is None else f"{kind.__name__} {text}".encode()


class _Walk:
    """One walk over one estimator."""

    def __init__(self) -> None:
        self.packages: set[str] = set()
        self._done: dict[int, tuple[object, _Node]] = {}  # with the object, so that its address is not used again
        self._open: dict[int, int] = {}

    def node(self, value: Any) -> _Node:
        scalar = _scalar(value)
        if scalar is not None:
            return _Node("scalar", scalar)
        address = id(value)
        if address in self._done:
            return self._done[address][1]
        if address in self._open:
            return _Node("cycle", str(len(self._open) - self._open[address]).encode())
        self._open[address] = len(self._open)
        try:
            found = self._compound(value)
        finally:
            del self._open[address]
        self._done[address] = (value, found)
        return found

    def _compound(self, value: Any) -> _Node:
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, list | tuple):
            return self._sequence(self._name(type(value)), value)
        if isinstance(value, dict):
            return self._mapping(value)
        if isinstance(value, set | frozenset):
            return _Node("set", *sorted(self.node(v).digest for v in value))
        if isinstance(value, np.dtype):
            return _Node("dtype", str(value.descr if value.names else value.str).encode())
        if isinstance(value, type | types.BuiltinFunctionType | np.ufunc | types.ModuleType):
            return _Node("name", _qualified(value).encode())
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, enum.Enum):
            return _Node("enum", self._name(type(value)).encode(), value.name.encode())
        return self._known(value) or self._object(value)

    def _known(self, value: Any) -> _Node | None:
        """Objects whose pickle says more than they hold, or says it in more than one way."""
        kind = type(value)
        top = kind.__module__.partition(".")[0]
        if isinstance(value, np.random.RandomState):
            return _Node("random", children=[("", self.node(value.get_state(legacy=False)))])
        if isinstance(value, np.random.Generator):
            return _Node("random", children=[("", self.node(value.bit_generator.state))])
        if isinstance(value, np.random.BitGenerator):
            return _Node("random", children=[("", self.node(value.state))])
        if top == "pandas" and hasattr(value, "to_numpy"):
            return self._frame(value)
        if top == "scipy" and hasattr(value, "tocsr"):
            csr = value.tocsr(copy=True)
            csr.sum_duplicates()  # sorts as well: the same matrix has one form
            arrays = [(f".{n}", self.node(getattr(csr, n))) for n in ("data", "indices", "indptr")]
            return _Node("sparse", str(value.shape).encode(), children=arrays)
        if top == "lightgbm" and kind.__name__ == "Booster":
            self.packages.add(top)
            text = re.sub(r"\nparameters:.*?\nend of parameters", "", value.model_to_string(), flags=re.DOTALL)
            return _Node("booster", text.encode())
        if top == "xgboost" and kind.__name__ == "Booster":
            self.packages.add(top)
            model = json.loads(bytes(value.save_raw("json")))
            model.pop("version", None)
            return _Node("booster", json.dumps(model, sort_keys=True).encode())
        return None

    def _array(self, value: np.ndarray[Any, Any]) -> _Node:
        shape = str(value.shape).encode()
        if isinstance(value, np.ma.MaskedArray):
            both = (("mask", np.ma.getmaskarray(value)), ("", np.asarray(value.filled())))
            return _Node("masked", children=[(name, self.node(array)) for name, array in both])
        value = np.asarray(value)
        if value.dtype.names:  # field by field: what lies between fields is whatever was in memory
            names = value.dtype.names
            return _Node("record", repr(names).encode(), shape, *(self._array(value[n]).digest for n in names))
        if value.dtype.hasobject:
            return _Node("objects", shape, self._sequence("list", value.ravel().tolist()).digest)
        if value.dtype.kind == "f":
            value = np.where(np.isnan(value), np.array(np.nan, value.dtype), value)  # one NaN
        native = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
        return _Node("array", native.dtype.str.encode(), shape, native.tobytes())

    def _sequence(self, kind: str, values: list[Any] | tuple[Any, ...]) -> _Node:
        scalars = [_scalar(v) for v in values]
        flat = [s for s in scalars if s is not None]
        if len(flat) == len(scalars):
            return _Node(kind, *flat)
        return _Node(kind, children=[(f"[{i}]", self.node(v)) for i, v in enumerate(values)])

    def _mapping(self, value: Mapping[Any, Any], kind: str = "") -> _Node:
        """In the order of the keys' digests: the order of insertion is no part of what a mapping says."""
        items = [
            (self.node(k).digest, k if isinstance(k, str) else repr(k)[:40], v)
            for k, v in value.items()
            if not (isinstance(k, str) and _TIMES.match(k))
        ]
        items.sort(key=lambda item: item[0])
        children = [(f"[{name}]", self.node(v)) for _, name, v in items]
        return _Node(kind or self._name(type(value)), *(digest for digest, _, _ in items), children=children)

    def _frame(self, value: Any) -> _Node:
        """pandas: a frame by its columns; a series or an index by its values."""
        if hasattr(value, "columns"):
            columns = [(f"[{i}]", self.node(value.iloc[:, i])) for i in range(value.shape[1])]
            names = [("columns", self.node(value.columns)), ("index", self.node(value.index))]
            return _Node("frame", children=[*names, *columns])
        values = value.to_numpy()
        children = [("", self.node(values)), ("name", self.node(getattr(value, "name", None)))]
        if hasattr(value, "index"):
            children.append(("index", self.node(value.index)))
        return _Node("series", str(value.dtype).encode(), children=children)

    def _function(self, value: types.FunctionType) -> _Node:
        cells = tuple(c.cell_contents for c in value.__closure__ or ())
        children = [
            (".defaults", self.node((value.__defaults__, value.__kwdefaults__))),
            (".closure", self.node(cells)),
        ]
        return _Node("function", _qualified(value).encode(), *_code(value.__code__), children=children)

    def _object(self, value: Any) -> _Node:
        """Anything else, by what pickle would keep of it."""
        kind = type(value)
        reducer = copyreg.dispatch_table.get(kind)
        reduced: Any = reducer(value) if reducer else value.__reduce_ex__(4)
        name = self._name(kind)
        if isinstance(reduced, str):
            return _Node("name", f"{name} {reduced}".encode())
        function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        children: list[tuple[str, _Node]] = []
        rest = tuple(a for a in arguments if a is not kind)
        if rest or getattr(function, "__name__", "") != "__newobj__":  # more than "make an empty one"
            children += [("()", self.node(function)), ("(…)", self.node(rest))]
        children += self._attributes(state)
        if items is not None:
            children.append(("[]", self.node(list(items))))
        if pairs is not None:
            children.append(("{}", self._mapping(dict(pairs), "dict")))
        return _Node(name, children=children)

    def _attributes(self, state: Any) -> Iterator[tuple[str, _Node]]:
        """The state that pickle keeps: attributes in name order, without the circumstances; or any one value."""
        both = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(s is None or isinstance(s, dict) for s in both):  # attributes, and those in slots
            merged = {k: v for s in both if s for k, v in s.items() if k not in _CIRCUMSTANCES}
            for name in sorted(merged, key=str):
                yield f".{name}", self.node(merged[name])
        else:
            yield ".state", self.node(state)

    def _name(self, kind: type) -> str:
        if kind.__module__ != "builtins":
            self.packages.add(kind.__module__.partition(".")[0])
        return _qualified(kind)


def _qualified(value: Any) -> str:
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", getattr(value, "__name__", None))
    return f"{module}.{name}" if module else str(name)


def _code(code: types.CodeType) -> Iterator[bytes]:
    """What a function does, without where it was written."""
    yield code.co_code
    yield repr((code.co_names, code.co_varnames)).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield repr(constant if not isinstance(constant, frozenset) else sorted(map(repr, constant))).encode()
