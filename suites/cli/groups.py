"""Groups of the configuration and their choices: files in suites/conf/, suites and backends."""

from __future__ import annotations

from backends.registry import descriptions
from suites.root import CONF
from suites.suite import load_suite, suite_names

SUITE_GROUP, BACKEND_KEY = "suite", "backend"


def group_names() -> list[str]:
    """Return the names of all groups and of the key `backend`, sorted."""
    folders = {folder.name for folder in CONF.iterdir() if folder.is_dir() and any(folder.glob("*.yaml"))}
    return sorted(folders | {SUITE_GROUP, BACKEND_KEY})


def choices_of(group: str) -> list[str]:
    """Return the choices of a group, sorted; [] if there is no such group."""
    if group == SUITE_GROUP:
        return list(suite_names())
    if group == BACKEND_KEY:
        return list(descriptions())
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def suite_nodes() -> dict[str, dict[str, object]]:
    """Return the settings of each choice of the group `suite`."""
    return {name: {"name": name, **load_suite(name).settings} for name in suite_names()}
