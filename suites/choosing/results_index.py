"""The index of a results folder in markdown: machines with date, commit, command, headline and links to tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from suites.cli.cell_commands import command_of_cell
from suites.latency.choice import Choice, choose, name_of
from suites.latency.ranking import rankings
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.statistics.validity import judged
from suites.suite import suite_names
from suites.tables.markdown import joined, machine_title, wrapped
from suites.tables.write_tables import SEARCH
from suites.text import one_line

COMMITS_SHOWN = 3
"""Number of commits that are named; others are counted."""


def results_index(folders: Iterable[MachineFolder], base: Path) -> str:
    """Return a section for each machine with records.

    Args:
        base: folder of the file with the index; links are relative to it.
    """
    return "\n\n".join(text for folder in folders if (text := _section(folder, base)))


def _section(folder: MachineFolder, base: Path) -> str:
    by_suite = {suite: folder.records(suite) for suite in (*suite_names(), SEARCH)}
    records = [record for of_suite in by_suite.values() for record in of_suite]
    if not records:
        return ""
    measured = ", ".join(f"{len(of_suite)} of {suite}" for suite, of_suite in by_suite.items() if of_suite)
    lines = [
        f"- **records**: {measured}",
        f"- **measured**: {joined(_dates(records), _commits(records))}",
        *_headline(by_suite.get("latency", []), by_suite.get("accuracy", [])),
        *_links(folder, base),
    ]
    return "\n".join([f"## {machine_title(records[0])}", "", *(wrapped(line, "  ") for line in lines)])


def _dates(records: Sequence[Record]) -> str:
    """Return the first and the last day, or "unknown date"."""
    days = sorted({record.measured_at[:10] for record in records if record.measured_at})
    return "unknown date" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _commits(records: Sequence[Record]) -> str:
    commits = sorted({record.maker.commit[:12] for record in records if record.maker and record.maker.commit})
    if not commits:
        return "unknown commit"
    more = len(commits) - COMMITS_SHOWN
    shown = ", ".join(commits[:COMMITS_SHOWN])
    return f"commit{'s' if len(commits) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"


def _headline(latency: Sequence[Record], accuracy: Sequence[Record]) -> list[str]:
    """Return the winner of the shape that most rows measured, and the command of its record."""
    choices = [choose(ranking, []) for ranking in rankings(latency, judged(accuracy))]
    decided = [choice for choice in choices if choice.winner is not None]
    if not decided:
        return []
    best: Choice = max(decided, key=lambda choice: len(choice.ranking.rows))
    winner, ranking = best.winner, best.ranking
    assert winner is not None
    record = winner.row.record
    lead = ""
    if best.runner_up is not None and best.over_runner_up is not None:
        lead = f"; {best.over_runner_up:.2f} times as fast as {name_of(best.runner_up.row)}"
    command = one_line(shlex.join(command_of_cell(record.command, record.cell)), 2000) if record.command else ""
    return [
        f"- **headline**: {ranking.workload.model}, {ranking.batch} x {ranking.sequence} tokens: "
        f"{name_of(winner.row)}, {winner.row.best.p50 / 1e6:.3f} ms{lead}",
        *([f"- **its command**: `{command}`"] if command and "`" not in command else []),
    ]


def _links(folder: MachineFolder, base: Path) -> list[str]:
    files: dict[str, list[str]] = {}
    for path in sorted(folder.tables.rglob("*")):
        if path.suffix in (".md", ".csv"):
            inside = path.relative_to(folder.tables)
            link = f"[{path.stem}]({path.relative_to(base).as_posix()})"
            files.setdefault(inside.parts[0] if len(inside.parts) > 1 else "all models", []).append(link)
    return [f"- **{model}**: {', '.join(links)}" for model, links in files.items()]
