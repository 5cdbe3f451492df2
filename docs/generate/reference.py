"""The configuration reference, generated from the schema."""

from __future__ import annotations

from itertools import groupby

from backends.config_key import Key, keys_of
from suites.cli.groups import choices_of, group_names
from suites.schema.run_schema import run_schema
from suites.tables.markdown import markdown

INTRODUCTION = """\
# Configuration reference

Set a key on the command line as `key=value`. Lists are written as `[1,8]`. Choose a file of a group as `group=choice`;
it sets several keys of that group. `python -m suites.run --cfg job` prints every key with its value for a command.

This page is generated from `suites/schema/` and the descriptions of the backends (`backends/*/description.py`).
Defaults are those of the schema. A file in `suites/conf/` can set others.
"""


def reference_page() -> str:
    """Return the page in markdown: the choices of each group, then the keys by group."""
    lines = [INTRODUCTION, "## Groups", "", markdown(("group", "choices"), _groups()), ""]
    for group, keys in groupby(sorted(keys_of(run_schema()), key=_order), key=_group):
        rows = [
            (f"`{key.name}`", key.type, f"`{key.default}`" if key.default else "", key.text.replace("*", r"\*"))
            for key in keys
        ]
        lines += [f"## {group}", "", markdown(("key", "type or choices", "default", "meaning"), rows), ""]
    return "\n".join(lines)


def _groups() -> list[tuple[str, str]]:
    # local.yaml is for one machine only.
    return [(f"`{group}`", ", ".join(name for name in choices_of(group) if name != "local")) for group in group_names()]


def _group(key: Key) -> str:
    group, dot, _ = key.name.partition(".")
    return f"`{group}`" if dot else "Keys of a run"


def _order(key: Key) -> bool:
    """Return the sort key that puts keys without a group first."""
    return "." in key.name
