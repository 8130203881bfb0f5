"""The last good copy of each spec, so that the DAGs of a spec that broke later live on.

One small JSON file per spec, named by its path: the YAML text that last parsed, and the defaults that stood beside it.
A file is written only when its text changed, by rename, so readers never see half of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from perennial.claims import claimed
from perennial.errors import SpecError
from perennial.settings import settings
from perennial.specs.loader import Kind, Loaded, SpecSet, parse_spec, read_defaults


def home() -> Path:
    """Where the copies lie by default."""
    return settings().home / "last-good-specs"


def remember(specset: SpecSet, folder: Path) -> None:
    """Keep the text of every good spec. A folder that cannot be written is no reason to fail."""
    defaults: dict[Path, dict[str, Any]] = {}
    for (kind, name), loaded in specset.sources.items():
        if (kind, name) in specset.stale:
            continue
        root = loaded.path.parent.parent.parent
        if root not in defaults:
            with contextlib.suppress(SpecError):
                defaults[root] = read_defaults(root)
        copy = {"path": str(loaded.path), "text": loaded.document.text, "defaults": defaults.get(root, {})}
        with contextlib.suppress(OSError):
            _write(_file(kind, loaded.path, folder), json.dumps(copy, ensure_ascii=False, sort_keys=True))


def recall(kind: Kind, path: Path, folder: Path) -> Loaded | None:
    """The spec at ``path`` as it last was good, or None when there is none, or when it no longer parses."""
    path = Path(path).absolute()
    try:
        copy = json.loads(_file(kind, path, folder).read_text("utf-8"))
        return parse_spec(kind, path, copy["text"], copy["defaults"])
    except (OSError, ValueError, KeyError, TypeError, SpecError):
        return None


def _file(kind: Kind, path: Path, folder: Path) -> Path:
    where = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return folder / f"{kind}-{path.parent.name}-{where}.json"


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        if path.read_text("utf-8") == text:
            return
    with claimed(path.with_name(f".{path.name}.part")) as temporary:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
