"""Errors of Hydra, OmegaConf and YAML as one line that names the key and the choices."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from suites.checks import did_you_mean, first_line, nearest, shortened
from suites.config import RunConfig
from suites.usage import CONF


def composing() -> tuple[type[Exception], ...]:
    """Types of the errors that say what is wrong with a configuration."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # a dependency of OmegaConf

    return HydraException, OmegaConfBaseException, YAMLError


def explain(error: Exception) -> str:
    """One line for an error that composing a configuration raised."""
    text = str(error)
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{several.group(1)} names several values: add -m to run each, or write key=[a,b] where a list is meant"
    if (word := _malformed(error)) is not None:
        return how_to_write(word)
    if missing := re.search(r"Could not (?:find|load) '([^/']+)/([^']*)'", text):
        group, choice = missing.groups()
        listed = re.search(r"Available options in '[^']+':(.*?)Config search path", text, re.DOTALL)
        choices = listed.group(1).split() if listed else sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        return f"there is no {group}={choice}; {did_you_mean(choice, choices)}choices: {', '.join(choices)}"
    if said := _of_a_file(text):
        return said
    cause = error.__cause__ or error
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "not in" in str(cause):
        return unknown_key(unknown.group(1))
    if deleted := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return unknown_key(deleted.group(1))
    merged = re.search(r"Error merging override [+~]*([^\s=]+)=", text)
    key = merged.group(1) if merged else getattr(cause, "full_key", "") or ""
    if "is not a ListConfig" in str(cause):
        example = _example(key)
        return f"{key} wants {example}, e.g. {key}={EXAMPLES[example]}"
    if mark := getattr(error, "problem_mark", None):
        return (
            f"{mark.name}, line {mark.line + 1}: it is not YAML: {getattr(error, 'problem', '') or 'it ends too early'}"
        )
    if _is_unknown(key) or (is_dataclass(type_of(key)) and "is not a subclass of" in str(cause)):
        return unknown_key(key)
    if said := _no_such_value(key, str(cause)):
        return said
    if "is not Optional" in str(cause):
        return f"{key}=null is no value; give one, or leave the key out"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    return f"{key}: {said}" if key and key not in said else said or first_line(cause)


def _of_a_file(text: str) -> str:
    """The line about a key or value in a configuration file, with the file's name; empty for other errors."""
    found = re.match(r"In '([^']+)': Could not override '([^']+)'\. No match in the defaults list", text)
    if found:
        return f"{found.group(1)}.yaml: {unknown_key(found.group(2))}"
    found = re.match(r"In '([^']+)': \w+ raised while composing config:\n(.*)\n\s+full_key: (\S+)", text)
    if not found:
        return ""
    file, said, key = found.groups()
    said = unknown_key(key) if _is_unknown(key) else _no_such_value(key, said)
    return f"{file}.yaml: {said}" if said else ""


def _is_unknown(key: str) -> bool:
    """Whether a dotted key is none of the schema's, nor in a mapping of its, nor Hydra's own."""
    parents = [key.rsplit(".", count)[0] for count in range(1, key.count(".") + 1)]
    mapped = any(str(type_of(parent)).startswith("dict") for parent in parents)
    return bool(re.fullmatch(r"(?!hydra\b)[\w.]+", key)) and type_of(key) is None and not mapped


def _no_such_value(key: str, text: str) -> str:
    """The line about a value that is none of an enumeration's; empty for other errors."""
    found = re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text)
    if not found:
        return ""
    value, choices = found.group(1), found.group(2).split(", ")
    return f"there is no {key}={shortened(value)}; {did_you_mean(value, choices)}choices: {', '.join(choices)}"


NO_CHOICE = re.compile(r"(?!backend=null$)[^=]*=(.*,)?(null|[+-]?[\d.]+|true|false|\[.*\]|\{.*\})(,.*)?", re.IGNORECASE)
"""A group with something in the place of a choice that is no name; backend=null is one, and quoted for Hydra."""


def unexplained(error: Exception, arguments: list[str]) -> str:
    """One line for an error of another type that Hydra raised while it composed a configuration."""
    text = str(error)
    if "Config group override must be" in text:
        groups = ["experiment", *(item.name for item in fields(RunConfig) if is_dataclass(item.default_factory))]
        bad = [w for w in arguments if w.partition("=")[0] in groups and NO_CHOICE.fullmatch(w)]
        return f"{bad[0] if bad else 'a group'} names no choice; --help lists the choices of each group"
    swept = [word for word in arguments if re.search(r"=\s*(range|interval|glob|choice|shuffle|sort)\s*\(", word)]
    return f"{shortened(swept[0]) if swept else 'the configuration'} cannot be composed: {first_line(error)}"


EXAMPLES = {"a list": "[1,8]", "a list of names": "[NAME]", "a list of lists": "[[1,8]]", "a mapping": "{NAME: 1}"}


def _example(key: str) -> str:
    kind = str(type_of(key))
    if kind.startswith("list[list"):
        return "a list of lists"
    return "a list of names" if kind == "list[str]" else "a mapping" if kind.startswith("dict") else "a list"


def type_of(key: str) -> Any:
    """The type that the schema gives a dotted key; None where it has no such key."""
    kind: Any = RunConfig
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return kind


def _malformed(error: Exception) -> str | None:
    """The word that Hydra's grammar does not read, if that is what the error is about."""
    if word := getattr(error, "override", None):
        return str(word)
    found = re.search(r"Error parsing override '(.*?)'\n", f"{error}\n", re.DOTALL)
    return found.group(1) if found else None


def how_to_write(word: str) -> str:
    """How to write an override that Hydra's grammar does not read."""
    key, equal, value = word.partition("=")
    if not equal or not re.fullmatch(r"[+~]*[\w.@/$-]+", key):
        return f"{shortened(word)!r} is not of the form key=value"
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "", value)
    if sum(bare.count(bracket) for bracket in "[{(") > sum(bare.count(bracket) for bracket in "]})"):
        return f"{shortened(word)!r} is cut short: close its brackets, and quote it if it has spaces"
    from hydra.core.override_parser.types import Quote, QuotedString

    quoted = f"{key}={QuotedString(shortened(value), Quote.double).with_quotes()}"
    return f"{shortened(word)!r} has characters that must be quoted; write {shlex.quote(quoted)}"


def unknown_key(key: str) -> str:
    """The line about a key that no schema has."""
    known = known_keys(RunConfig)
    parent = key.rpartition(".")[0]
    if parent and str(type_of(parent)).startswith("dict"):
        return f"{parent} has no {key.rpartition('.')[2]}; add it with a plus, as +{key}=VALUE"
    if is_dataclass(type_of(key)):
        inside = [name for name in known if name.startswith(f"{key}.")]
        return f"{key} is a group of keys; set one of {', '.join(inside)}"
    if parent and type_of(parent) is not None and not is_dataclass(type_of(parent)):
        return f"{parent} takes a value and has no keys; write {parent}=VALUE"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    near = nearest(key.rpartition(".")[2], [name.rpartition(".")[2] for name in siblings]) if parent else ""
    near = f"{parent}.{near}" if near else "" if siblings and parent else nearest(key, known)
    choices = ", ".join(siblings or [name for name in known if "." not in name])
    question = f"did you mean {near}? {_help_of(near)}" if near else ""
    return f"there is no key {shortened(key)}; {question}choices: {choices}"


def _help_of(key: str) -> str:
    """The help text of a key in brackets, with a space behind it; empty if the schema has none for it."""
    parent, _, name = key.rpartition(".")
    schema = type_of(parent) if parent else RunConfig
    text = next((item.metadata.get("help", "") for item in fields(schema) if item.name == name), "")
    return f"({text}) " if text else ""


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
