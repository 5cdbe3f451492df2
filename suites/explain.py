"""Hydra's and OmegaConf's errors as one line that names the choices."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from suites.config import RunConfig


def composing() -> tuple[type[Exception], ...]:
    """What composing a configuration raises."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return HydraException, OmegaConfBaseException


def explain(error: Exception) -> str:
    """One line for whatever composing a configuration raised."""
    text = str(error)
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{several.group(1)} names several values: add -m to run each, or write key=[a,b] where a list is meant"
    if malformed := re.search(r"Error parsing override '([^']*)'", text):
        return f"{malformed.group(1)!r} is not of the form key=value"
    if word := getattr(error, "override", ""):
        cut = any(bracket in word for bracket in "[{(")
        return f"{word!r} {'is cut short: close its brackets, and quote it if it has spaces' if cut else text}"
    if missing := re.search(r"Could not find '([^/']+)/([^']*)'", text):
        group, choice = missing.groups()
        listed = re.search(r"Available options in '[^']+':(.*?)Config search path", text, re.DOTALL)
        choices = listed.group(1).split() if listed else []
        return f"there is no {group}={choice}; {_hint(choice, choices)}choices: {', '.join(choices)}"
    cause = error.__cause__ or error
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "not in" in str(cause):
        return unknown_key(unknown.group(1))
    key = getattr(cause, "full_key", "") or ""
    if "is not a ListConfig" in str(cause):
        return f"{key} wants a list, e.g. {key}=[1,8]"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    return f"{key}: {said}" if key and key not in said else said


def unknown_key(key: str) -> str:
    """The line about a key that no schema has."""
    known = known_keys(RunConfig)
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    return f"there is no key {key}; {_hint(key, known)}choices: {', '.join(siblings)}"


def _hint(wanted: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wanted.lower(), known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def added_keys(config: Mapping[Any, Any], schema: Any = RunConfig, prefix: str = "") -> list[str]:
    """Dotted keys of a configuration that its schema lacks: Hydra lets `+key=value` add them."""
    known = {item.name: item.default_factory for item in fields(schema)}
    found = [f"{prefix}{name}" for name in config if name not in known]
    for name, factory in known.items():
        if is_dataclass(factory) and name in config:
            found += added_keys(config[name], factory, f"{prefix}{name}.")
    return found


def known_keys(schema: Any, prefix: str = "") -> list[str]:
    """Every key of a dataclass schema, dotted, in the order of its fields."""
    keys = []
    for item in fields(schema):
        keys.append(prefix + item.name)
        if is_dataclass(item.default_factory):
            keys += known_keys(item.default_factory, f"{prefix}{item.name}.")
    return keys
