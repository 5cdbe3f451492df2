"""The configuration reference, made from the schema."""

from __future__ import annotations

from itertools import groupby

from suites.root import CONF
from suites.schema.config import RunConfig
from suites.schema.config_key import Key, keys_of
from suites.tables.markdown import markdown

INTRODUCTION = """\
# Configuration reference

Set a key on the command line as `key=value`. Lists are written as `[1,8]`. Choose a file of a group as `group=choice`;
it sets several keys of that group. `python -m suites.run --cfg job` prints every key with its value for a command.

This page is generated from `suites/schema/config.py`. Defaults are those of the schema. A file in `suites/conf/` can
set others.
"""


def reference_page() -> str:
    """The page in markdown: the choices of each group, then the keys by group."""
    lines = [INTRODUCTION, "## Groups", "", markdown(("group", "choices"), _groups()), ""]
    for group, keys in groupby(sorted(keys_of(RunConfig), key=_order), key=_group):
        rows = [
            (f"`{one.name}`", one.type, f"`{one.default}`" if one.default else "", one.text.replace("*", r"\*"))
            for one in keys
        ]
        lines += [f"## {group}", "", markdown(("key", "type or choices", "default", "meaning"), rows), ""]
    return "\n".join(lines)


def _groups() -> list[tuple[str, str]]:
    folders = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "batches")
    found = []
    for folder in folders:
        # local.yaml belongs to one machine.
        names = sorted(file.stem for file in folder.glob("*.yaml") if file.stem != "local")
        found.append((f"`{folder.name}`", ", ".join(names)))
    return found


def _group(key: Key) -> str:
    group, dot, _ = key.name.partition(".")
    return f"`{group}`" if dot else "Keys of a run"


def _order(key: Key) -> bool:
    """Keys without a group come first."""
    return "." in key.name
