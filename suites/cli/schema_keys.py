"""Keys of the schema by their dotted names: types, help texts, and entries of mappings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, get_type_hints

from suites.root import CONF
from suites.schema.run_schema import run_schema

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Schema = DataclassInstance | type[DataclassInstance]


def type_of(key: str) -> object:
    """Return the type of a dotted key in the schema, or None if the schema does not have the key."""
    kind: object = run_schema()
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return kind


def known_keys(schema: Schema, prefix: str = "") -> list[str]:
    """Return all dotted keys of a dataclass schema, in the order of its fields."""
    keys = []
    for item in fields(schema):
        keys.append(prefix + item.name)
        if is_dataclass(item.default_factory):
            keys += known_keys(item.default_factory, f"{prefix}{item.name}.")
    return keys


def keys_not_in_schema(config: Mapping[object, object], schema: Schema, prefix: str = "") -> list[str]:
    """Return the dotted keys that a configuration has and its schema does not. Hydra accepts them as `+key=value`."""
    factories = {item.name: item.default_factory for item in fields(schema)}
    added = [f"{prefix}{name}" for name in config if name not in factories]
    for name, factory in factories.items():
        if is_dataclass(factory) and name in config:
            added += keys_not_in_schema(config[name], factory, f"{prefix}{name}.")
    return added


def help_text(key: str) -> str:
    """Return the help text of a dotted key; empty if it has none."""
    parent, _, name = key.rpartition(".")
    schema = type_of(parent) if parent else run_schema()
    items = fields(schema) if is_dataclass(schema) else ()
    return next((str(item.metadata.get("help", "")) for item in items if item.name == name), "")


def entries_of(parent: str) -> list[str]:
    """Return the entries that files of suites/conf/ have in a mapping such as model.architecture."""
    from yaml import safe_load  # type: ignore[import-untyped]  # a dependency of OmegaConf

    group, _, mapping = parent.partition(".")
    entries: set[str] = set()
    for file in (CONF / group).glob("*.yaml"):
        entries.update((safe_load(file.read_text(encoding="utf-8")) or {}).get(mapping) or {})
    return sorted(entries)
