"""Explain errors of Hydra, OmegaConf and YAML in one line that names the key and the choices."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import EnumMeta

from suites.cli.groups import choices_of, group_names
from suites.cli.schema_keys import entries_of, help_text, known_keys, type_of
from suites.schema.refusals import Refused, did_you_mean, first_line, nearest, no_such_choice, shortened
from suites.schema.run_schema import run_schema


def composition_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors that composing an invalid configuration raises."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # a dependency of OmegaConf

    return HydraException, OmegaConfBaseException, YAMLError


def explain(error: Exception) -> str:
    """Return one line for an error that composing a configuration raised."""
    text = str(error)
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{several.group(1)} has several values; add -m to run each of them, or write a list as key=[a,b]"
    if (word := _malformed(error)) is not None:
        return explain_malformed_override(word)
    if missing := re.search(r"Could not (?:find|load) '([^/']+)/([^']*)'", text):
        group, choice = missing.groups()
        listed = re.search(r"Available options in '[^']+':(.*?)Config search path", text, re.DOTALL)
        choices = listed.group(1).split() if listed else choices_of(group)
        return no_such_choice(group, choice, choices)
    if message := _in_file(text):
        return message
    cause = error.__cause__ or error
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "not in" in str(cause):
        group = is_dataclass(type_of(unknown.group(1)))
        return unknown_key(str(getattr(cause, "full_key", "") or unknown.group(1)) if group else unknown.group(1))
    if deleted := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return unknown_key(deleted.group(1))
    if existing := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{existing.group(1)} is a key of the schema; write {existing.group(1)}=VALUE without a plus"
    if twice := re.search(r"^(\S+) appears more than once in the final defaults list", text):
        return f"{twice.group(1)} is chosen twice; write {twice.group(1)}=NAME once, without a plus"
    merged = re.search(r"Error merging override [+~]*([^\s=]+)=", text)
    key = merged.group(1) if merged else getattr(cause, "full_key", "") or ""
    if message := _interpolation(str(cause)):
        return message
    if missing := re.search(r"missing mandatory value: (\S+)", str(cause)):
        return f"{missing.group(1)}=??? is not a value; give a value, or leave the key out"
    if re.search("is not a ListConfig|Cannot merge |is incompatible with type hint", str(cause)) and _is_container(key):
        example = _example(key)
        return f"{key} must be {example}, e.g. {key}={EXAMPLES[example]}"
    if (inner := re.search(r"Key '([^']+)' not in '\w+'", str(cause))) and is_dataclass(type_of(key)):
        return unknown_key(f"{key}.{inner.group(1)}")
    if mark := getattr(error, "problem_mark", None):
        problem = getattr(error, "problem", "") or "it ends too early"
        return f"{mark.name}, line {mark.line + 1}: the file is not valid YAML: {problem}"
    if _is_unknown(key) or (is_dataclass(type_of(key)) and "is not a subclass of" in str(cause)):
        return unknown_key(key)
    if message := _no_such_value(key, str(cause)):
        return message
    if "is not Optional" in str(cause):
        return f"{key}=null is not a value; give a value, or leave the key out"
    if message := _wrong_type(key, str(cause)):
        return message
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    message = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    return f"{key}: {message}" if key and key not in message else message or first_line(cause)


def _in_file(text: str) -> str:
    """Return the line for a bad key or value in a configuration file, with the file's name; "" for other errors."""
    matched = re.match(r"In '([^']+)': Could not override '([^']+)'\. No match in the defaults list", text)
    if matched:
        file, name = matched.groups()
        if type_of(name) is not None and not is_dataclass(type_of(name)):
            return f"{file}.yaml: {name} is a key and not a group; write {name}: VALUE outside of the defaults list"
        return f"{file}.yaml: {unknown_key(name)}"
    matched = re.match(r"In '([^']+)': \w+ raised while composing config:\n(.*)\n\s+full_key: (\S+)", text)
    if not matched:
        return ""
    file, message, key = matched.groups()
    message = unknown_key(key) if _is_unknown(key) else _no_such_value(key, message) or _wrong_type(key, message)
    return f"{file}.yaml: {message}" if message else ""


def _is_unknown(key: str) -> bool:
    """Return whether a dotted key is not in the schema, not in a mapping of the schema and not a key of Hydra."""
    parents = [key.rsplit(".", count)[0] for count in range(1, key.count(".") + 1)]
    mapped = any(str(type_of(parent)).startswith("dict") for parent in parents)
    return bool(re.fullmatch(r"(?!hydra\b)[\w.]+", key)) and type_of(key) is None and not mapped


def _no_such_value(key: str, text: str) -> str:
    """Return the line for a value that is not in an enumeration; "" for other errors."""
    matched = re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text)
    if not matched:
        kind = type_of(key)
        if isinstance(kind, EnumMeta) and "is not a valid input for <enum" in text:
            return f"{key} takes one of {', '.join(kind.__members__)}"
        return ""
    value, choices = matched.group(1), matched.group(2).split(", ")
    return no_such_choice(key, value, choices)


NO_CHOICE = re.compile(r"[^=]*=(.*,)?(null|[+-]?[\d.]+|true|false|\[.*\]|\{.*\})(,.*)?", re.IGNORECASE)
"""A group with a value that is not a name."""

FORMER_KEYS = {
    "backend.name": "backend",
    "backend.time_limit": "time_limit",
    "backend.cuda_graph": "cuda_graph",
    "backend.interpreter": "backend_interpreter",
}
"""Keys that earlier versions had, and the keys that replace them."""

INTERPOLATIONS = (
    (r"Interpolation key '([^']+)' not found", "${{{0}}} names no key; {1}give a value, or the name of a key"),
    (r"Unsupported interpolation type (\S+)", "${{{0}:...}} is not supported; {1}give the value itself"),
    (r"Recursive interpolation|InterpolationResolutionError", "a ${{KEY}} refers to itself; {1}give a value"),
)
"""Patterns of OmegaConf's messages about ${...}, and our lines for them."""


def _interpolation(text: str) -> str:
    """Return the line for an interpolation ${...} that cannot be resolved; "" for other errors."""
    for pattern, line in INTERPOLATIONS:
        if matched := re.search(pattern, text):
            name = matched.group(1) if matched.groups() else ""
            return line.format(name, did_you_mean(name, known_keys(run_schema())) if name else "")
    return ""


TYPE_NAMES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false", "String": "a text"}


def _wrong_type(key: str, text: str) -> str:
    """Return the line for a value of another type than that of its key; "" for other errors."""
    pattern = r"Value '(.*)' (?:of type '\w+' could not be converted to (\w+)|is not a valid (\w+))"
    matched = re.search(pattern, text, re.DOTALL)
    name = TYPE_NAMES.get(matched.group(2) or matched.group(3), "") if matched else ""
    if not matched or not name:
        return ""
    in_list = str(type_of(key.partition("[")[0])).startswith("list")
    return (
        f"{key}: {shortened(matched.group(1))} must be {name}"
        if in_list
        else (f"{key}={shortened(matched.group(1))} must be {name}")
    )


def unexplained(error: Exception, arguments: list[str]) -> str:
    """Return one line for an error of another type that Hydra raised while it composed a configuration."""
    text = str(error)
    if "Config group override must be" in text:
        groups = ["experiment", *(item.name for item in fields(run_schema()) if is_dataclass(item.default_factory))]
        if malformed := next((word for word in arguments if word.startswith("=")), ""):
            return explain_malformed_override(malformed)
        bad = [word for word in arguments if word.partition("=")[0] in groups and NO_CHOICE.fullmatch(word)]
        return f"{bad[0] if bad else 'a group'} names no choice; --help lists the choices of each group"
    swept = [word for word in arguments if re.search(r"=\s*(range|interval|glob|choice|shuffle|sort)\s*\(", word)]
    return f"{shortened(swept[0]) if swept else 'the configuration'} cannot be composed: {first_line(error)}"


EXAMPLES = {"a list": "[1,8]", "a list of names": "[NAME]", "a list of lists": "[[1,8]]", "a mapping": "{NAME: 1}"}


def _is_container(key: str) -> bool:
    return str(type_of(key)).startswith(("list", "dict"))


def _example(key: str) -> str:
    kind = str(type_of(key))
    if kind.startswith("list[list"):
        return "a list of lists"
    return "a list of names" if kind == "list[str]" else "a mapping" if kind.startswith("dict") else "a list"


def _malformed(error: Exception) -> str | None:
    """Return the word that Hydra cannot parse, or None if the error has another cause."""
    if word := getattr(error, "override", None):
        return str(word)
    matched = re.search(r"Error parsing override '(.*?)'\n", f"{error}\n", re.DOTALL)
    return matched.group(1) if matched else None


def explain_malformed_override(word: str) -> str:
    """Return one line about how to write an override that Hydra cannot parse."""
    key, equal, value = word.partition("=")
    if not equal or not re.fullmatch(r"[+~]*[\w.@/$-]+", key):
        name = key if type_of(key) else nearest(key, known_keys(run_schema()))
        hint = f"; did you mean {name}=VALUE?" if name and not equal else ""
        return f"{shortened(word)!r} is not of the form key=value{hint}"
    if re.fullmatch(r"[\w-]+", value):
        return f"{shortened(word)!r} is not of the form key=value: {shortened(key)} is not a key"
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "", value)
    if sum(bare.count(bracket) for bracket in "[{(") > sum(bare.count(bracket) for bracket in "]})"):
        return f"{shortened(word)!r} is cut short: close its brackets, and quote it if it has spaces"
    from hydra.core.override_parser.types import Quote, QuotedString

    quoted = f"{key}={QuotedString(shortened(value), Quote.double).with_quotes()}"
    return f"{shortened(word)!r} has characters that must be quoted; write {shlex.quote(quoted)}"


def unknown_key(key: str) -> str:
    """Return the line for a key that is not in the schema: the nearest key with its help, and the choices."""
    all_keys = known_keys(run_schema())
    parent = key.rpartition(".")[0]
    if key in FORMER_KEYS:
        return f"{key} is now {FORMER_KEYS[key]}; write {FORMER_KEYS[key]}=VALUE ({help_text(FORMER_KEYS[key])})"
    if parent and str(type_of(parent)).startswith("dict"):
        name = key.rpartition(".")[2]
        hint = did_you_mean(name, entries_of(parent), f"{parent}.")
        return f"{parent} has no {name}; {hint}a new entry needs a plus: +{key}=VALUE"
    if str(type_of(key)).startswith("dict"):
        return f"{key} has no such entry; new entries need a plus: +{key}={{NAME: VALUE}} ({help_text(key)})"
    if is_dataclass(type_of(key)):
        inside = [name for name in all_keys if name.startswith(f"{key}.")]
        return f"{key} is a group of keys; set one of {', '.join(inside)}"
    if parent and type_of(parent) is not None and not is_dataclass(type_of(parent)):
        return f"{parent} takes a value and has no keys; write {parent}=VALUE"
    siblings = [name for name in all_keys if name.rpartition(".")[0] == parent]
    nearest_key = nearest(key.rpartition(".")[2], [name.rpartition(".")[2] for name in siblings]) if parent else ""
    nearest_key = f"{parent}.{nearest_key}" if nearest_key else "" if siblings and parent else nearest(key, all_keys)
    choices = ", ".join(siblings or [name for name in all_keys if "." not in name])
    question = f"did you mean {nearest_key}? {_help_of(nearest_key)}" if nearest_key else ""
    return f"there is no key {shortened(key)}; {question}choices: {choices}"


def _help_of(key: str) -> str:
    """Return the help text of a key in brackets, with a space after it; "" if the key has no help text."""
    text = help_text(key)
    return f"({text}) " if text else ""


def check_keys(words: Iterable[str]) -> None:
    """Check the keys and the choices of groups in overrides before Hydra composes them.

    Raises:
        Refused: A key is not in the schema, or a group has no such choice.
    """
    groups = set(group_names())
    for word in words:
        key, equal, value = word.lstrip("+~").partition("=")
        parent, _, name = key.rpartition(".")
        kind = str(type_of(parent))
        new_entry = kind.startswith("dict") and not word.startswith("+") and name not in entries_of(parent)
        if equal and (new_entry or (key not in groups and not kind.startswith("list") and _is_unknown(key))):
            raise Refused(unknown_key(key))
        choices = choices_of(key)
        choice = value.strip("\"'")
        if choices and key != "interpreter" and re.fullmatch(r"\w+", choice) and choice not in choices:
            raise Refused(no_such_choice(key, choice, choices))
