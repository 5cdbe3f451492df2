"""Records of suite=launch to markdown: enqueue time, share of Python, and waiting of the GPU, by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.launch.launch_advice import sentences
from suites.launch.result import LaunchResult, LaunchTimes
from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, configuration, digits, fitted, joined, notes_cell, one_machine, wrapped
from suites.tables.table import Table

COLUMNS = ("batch", "seq", "graph", "enqueue ms", "Python", "Python ms", "step ms", "GPU ms", "GPU waits", "notes")

LEGEND = """\
Cost of launching a step, by batch.

- **graph**: whether each step replays a CUDA graph.
- **enqueue ms**: median host time of the call that enqueues a step on an idle device. On a CPU it is the whole step.
- **Python, Python ms**: share of this time outside of calls of the library. If a step is one call, a clock is read
  around the step and around the call within it. A step of PyTorch without a graph has many calls: there the profiler of
  PyTorch gives the share of the time in which neither an operator nor a function of CUDA runs. It is not known for code
  that PyTorch compiled for a CPU.
- **step ms**: on a GPU the time of a step among steps back to back, by events; on a CPU that of one step.
- **GPU ms**: device time of a step that is enqueued while the GPU does other work, so that it never waits for the host.
  Empty if the queue of the GPU is too short for a step.
- **GPU waits**: share of a step in which the GPU waits for the host, 1 - GPU ms / step ms.
- **notes**: times that were not steady after the warm-up, or why there is no CUDA graph."""


def launch_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Launch", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    common = distinctions(records)
    lines = ["", one_machine(records), *common.caption()]
    for record in sorted(records, key=lambda record: record.cell.id):
        cell, result = record.cell, record.result
        lines += ["", f"### {joined(f'{cell.release}, {cell.backend} {cell.precision}')}", ""]
        if words := configuration(record, common.of(record)):
            lines += [wrapped(words), ""]
        if record.outcome != OK or not isinstance(result, LaunchResult):
            lines += [f"{record.outcome}: {record.reason}"]
            continue
        lines += [fitted(COLUMNS, rows_of(record, result), 3), ""]
        lines += [wrapped(f"- {sentence}", "  ") for sentence in sentences(result)]
    return "\n".join(lines)


def rows_of(record: Record, result: LaunchResult) -> list[list[str]]:
    """Return a row for each shape and CUDA graph setting."""
    ordered = sorted(result.times, key=lambda times: (times.sequence, times.batch, times.cuda_graph))
    return [_row(record, times) for times in ordered]


def _row(record: Record, times: LaunchTimes) -> list[str]:
    share, waiting, busy = times.python_share, times.waiting_share, times.busy_ms
    facts = record.facts.shapes.get(f"{times.batch}x{times.sequence}")
    return [
        str(times.batch),
        str(times.sequence),
        "" if record.cell.device == "cpu" and not times.steps else "yes" if times.cuda_graph else "no",
        digits(times.enqueue_ms),
        "" if share is None else f"{share:.1%}",
        "" if share is None else digits(share * times.enqueue_ms) if share > 0 else "0",
        digits(times.step_ms),
        "" if busy is None else digits(busy),
        "" if waiting is None else f"{waiting:.1%}",
        notes_cell(
            "" if times.steady else "not steady after warm-up",
            f"no CUDA graph: {facts.no_cuda_graph}" if facts is not None and facts.no_cuda_graph else "",
        ),
    ]


TABLES = {"launch": Table("suites.launch.tables:launch_tables")}

END_TABLES = "suites.launch.launch_end_tables:launch_end_tables"
"""Function that makes the short tables at the end of a run."""

PLOTS = "suites.launch.launch_plots:write_launch_plots"
"""Function that writes the plots of a machine."""
