"""Choices as text of 80 columns, and as JSON values."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from suites.cli.cell_commands import command_of_cell
from suites.latency.answer_table import milliseconds
from suites.latency.choice import Choice, name_of
from suites.latency.figures import LatencyRow
from suites.latency.limits import QUANTITIES
from suites.latency.ranking import RANK_NAMES, Baseline, RankedRow
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.stats import CONFIDENCE
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.end_table import WIDTH, abbreviated, heading, short_options
from suites.tables.markdown import configuration
from suites.text import one_line

LABEL = 12
"""Characters of the first column."""

NEEDED = (1 + CONFIDENCE) / 2
"""Smallest one-sided confidence at which two times count as different."""

SURE = 0.999
"""Confidence above which a text does not show the exact figure."""

REPLACED = re.compile(r"<[\w.]+>")
"""A word of a recorded command that was replaced, because it was a path of the machine."""


def text(choices: Iterable[Choice], baseline: Baseline, sources: Mapping[str, str], rank: Rank = Rank.gpu) -> str:
    """Return the choices in lines of at most `WIDTH` cells; only a single long word of a command may be longer.

    Args:
        sources: names of calibration texts by digest.
        rank: the time that ranked the rows.
    """
    blocks = [f"Ranked by {RANK_NAMES[rank]}."]
    for workload, members in groupby(choices, key=lambda choice: choice.ranking.workload):
        of_workload = list(members)
        records = {item.row.record.cell.id: item.row.record for choice in of_workload for item in choice.ranking.rows}
        common = distinctions([*records.values()], sources=sources)
        name, _, details = str(workload).partition(", ")
        blocks.append("\n".join([abbreviated(workload.machine, WIDTH), *heading(name, details)]))
        blocks += ["\n".join(_block(choice, baseline, common)) for choice in of_workload]
    return "\n\n".join(blocks)


def _block(choice: Choice, baseline: Baseline, common: Distinctions) -> Iterator[str]:
    ranking = choice.ranking
    sequences = f"{ranking.batch} sequence{'s' if ranking.batch > 1 else ''}"
    yield f"{ranking.batch}x{ranking.sequence}: {sequences} of {ranking.sequence} tokens"
    winner, runner_up = choice.winner, choice.runner_up
    if winner is None:
        yield from _field("no winner", choice.reason)
        yield from _field("nearest", choice.nearest)
        return
    yield from _field("tie" if choice.is_tie else "winner", _row(winner))
    yield from _field("options", _options(winner, common))
    if choice.variants:
        several = choice.variants > 1
        rows = f"{choice.variants} more row{'s' if several else ''} of {_kind(winner)} with other options"
        yield from _field("", f"{rows} {'tie' if several else 'ties'} with it")
    yield from _field("runner-up", "no other row meets the limits" if runner_up is None else _row(runner_up))
    if runner_up is not None and _kind(runner_up) == _kind(winner):
        yield from _field("options", _options(runner_up, common))
    yield from _field("speed-up", _speedup(choice, baseline))
    yield from _field("confidence", _confidence(choice))
    yield from _command(winner.row.record)


def _field(label: str, words: str) -> Iterator[str]:
    """Yield a labelled text in lines; nothing without a text."""
    if words:
        yield from textwrap.wrap(
            one_line(words), WIDTH, initial_indent=f"  {label:<{LABEL}}", subsequent_indent=" " * (LABEL + 2),
            break_on_hyphens=False,
        )  # fmt: skip


def _options(item: RankedRow, common: Distinctions) -> str:
    return short_options(configuration(item.row.record, common.of(item.row.record)))


def _kind(item: RankedRow) -> str:
    return f"{item.row.record.cell.backend} {item.row.record.cell.precision}"


def _row(item: RankedRow) -> str:
    excluded = f" ({item.row.contender.excluded})" if item.row.contender.excluded else ""
    request = "request " if item.row.rank is Rank.request else ""
    return f"{name_of(item.row)}, {request}p50 {milliseconds(item.row.best.p50)} ms{excluded}"


def _speedup(choice: Choice, baseline: Baseline) -> str:
    assert choice.winner is not None
    ratio = choice.winner.speedup
    over = f"over {baseline}: " + ("it has no valid row here" if ratio is None else f"{ratio:.2f}x")
    if choice.over_runner_up is None:
        return over
    return f"over the runner-up: {choice.over_runner_up:.2f}x; {over}"


def _confidence(choice: Choice) -> str:
    """Return how sure it is that the winner is faster than the runner-up."""
    if choice.winner is None or choice.runner_up is None:
        return ""
    if choice.confidence is None:
        return "not known, because the spread between processes of the runner-up is not known"
    sure = f"more than {SURE:.1%}" if choice.confidence > SURE else f"{choice.confidence:.1%}"
    pair = [item.row.best.processes for item in (choice.winner, choice.runner_up)]
    tie = f"a tie, because less than {NEEDED:.0%}; " if choice.is_tie else ""
    study = "; the spread of one process is that of a study of equal processes" if 1 in pair else ""
    test = f"Welch's t test, {pair[0]} and {pair[1]} processes{study}"
    return f"{sure} that it is faster than the runner-up ({tie}{test})"


def _command(record: Record) -> Iterator[str]:
    """Yield the command of the cell in lines that a shell joins."""
    command = command_of_cell(record.command, record.cell)
    words = [shlex.quote(one_line(word)) for word in command]
    if not words:
        yield from _field("command", "not recorded")
        return
    lines, indent = [""], " " * (LABEL + 2)
    for word in words:
        if lines[-1] and len(indent) + len(lines[-1]) + len(word) + len("  \\") > WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    whole = f" \\\n{indent}  ".join(lines)
    yield from f"  {'command':<{LABEL}}{whole}".splitlines()
    if any(map(REPLACED.search, command)):
        yield from _field("", "Replace the words in <...> by paths of your machine.")


def values(choice: Choice, baseline: Baseline, rank: Rank = Rank.gpu) -> dict[str, object]:
    """Return a choice as a JSON object. Times are in ms, memory is in MB, unknown values are null."""
    ranking = choice.ranking
    workload = ranking.workload
    return {
        "machine": workload.machine,
        "model": workload.model,
        "weights": workload.weights,
        "lengths": workload.lengths,
        "tokens": workload.tokens,
        "batch": ranking.batch,
        "sequence": ranking.sequence,
        "result": choice.result,
        "winner": _row_values(choice.winner),
        "runner_up": _row_values(choice.runner_up),
        "tied_variants": choice.variants,
        "rank": rank.name,
        "baseline": str(baseline),
        "speedup_over_baseline": None if choice.winner is None else choice.winner.speedup,
        "speedup_over_runner_up": choice.over_runner_up,
        "confidence": choice.confidence,
        "reason": choice.reason,
        "nearest": choice.nearest,
    }


def _row_values(item: RankedRow | None) -> dict[str, object] | None:
    if item is None:
        return None
    row: LatencyRow = item.row
    cell = row.record.cell
    figures: Sequence[tuple[str, float | None]] = [(name, each.figure(row)) for name, each in QUANTITIES.items()]
    return {
        "cell": cell.id,
        "backend": cell.backend,
        "precision": cell.precision,
        "cuda_graph": row.graph,
        **dict(figures),
        "processes": row.best.processes,
        "cannot_win": row.contender.excluded,
        "command": command_of_cell(row.record.command, cell),
    }
