"""JSON Schemas of the specs, for editors: descriptions, defaults, the short forms, and only what works today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perennial.specs import rules
from perennial.specs.feeds import FeedSpec
from perennial.specs.models import ModelSpec

_SPECS: dict[str, type[FeedSpec] | type[ModelSpec]] = {"feed": FeedSpec, "model": ModelSpec}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas by kind: ``feed`` and ``model``."""
    return {kind: _schema(kind) for kind in _SPECS}


def write_schemas(folder: Path) -> list[Path]:
    """Write ``<kind>.schema.json`` for each kind into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, schema in schemas().items():
        path = folder / f"{kind}.schema.json"
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"$schema": _DIALECT, "title": f"Perennial {kind}"}
    schema |= {k: v for k, v in _SPECS[kind].model_json_schema(mode="validation").items() if k != "title"}
    schema["required"] = [name for name in schema["required"] if name != "owner"]  # may stand in defaults.yaml
    for loc, today in rules.values_today(kind):
        holder = _at(schema, loc)
        if holder is not None:
            holder.pop("enum", None)
            holder |= {"enum": list(today)}
    definitions = schema["$defs"]
    definitions.get("Training", {}).get("properties", {}).pop("weight", None)
    if "Scoring" in definitions:
        definitions["Scoring"]["properties"]["on"] = {"const": "data", "default": "data"}
        definitions.pop("At", None)
    _tidy(schema)
    return schema


def _at(schema: dict[str, Any], loc: tuple[str | int, ...]) -> dict[str, Any] | None:
    """The schema of the value at ``loc``, through references and short forms."""
    current: dict[str, Any] = schema
    for part in loc:
        found = next((c for c in _resolved(schema, current) if part in c.get("properties", {})), None)
        if found is None:
            return None
        current = found["properties"][part]
    text = [c for c in current.get("anyOf", []) if c.get("type") == "string"]  # a short form
    if text:
        return text[0]  # type: ignore[no-any-return]
    return current if "type" in current else None


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    found = [node]
    if "$ref" in node:
        found += _resolved(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    for choice in node.get("anyOf", []):
        found += _resolved(schema, choice)
    return found


def _tidy(node: Any) -> None:
    """Titles made of field names say nothing; texts that classes carry stay."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    for name, child in node.items():
        if name in ("properties", "$defs"):
            for grandchild in child.values():
                if isinstance(grandchild, dict):
                    grandchild.pop("title", None)
                _tidy(grandchild)
        elif name not in ("default", "examples"):
            _tidy(child)
