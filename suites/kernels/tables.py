"""Records of suite=kernels to markdown: times by class of kernel, and the differences of two precisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from suites.kernels.classes import CLASSES, IDLE, kernel_class, times_by_class
from suites.kernels.kernel_names import kernels_of_all_layers, shortened
from suites.kernels.result import KernelsResult
from suites.records.record import OK, Record
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.markdown import (
    NOTES_LEGEND,
    ROW_LEGEND,
    by_machine,
    configuration,
    digits,
    fitted,
    markdown,
    notes_cell,
    one_machine,
    wrapped,
)
from suites.tables.models import model_names
from suites.tables.table import Table

TOLERANCE = 0.05
"""Largest difference of the sum of all classes from a step without profiler, as a share of the step."""

LARGEST = 8
"""Kernels of a row that the second table names."""

COLUMNS = (
    "backend",
    "precision",
    "batch",
    "seq",
    "profiler",
    "step ms",
    *CLASSES,
    IDLE,
    "sum ms",
    "sum / step",
    "notes",
)

KEYS = COLUMNS.index("step ms") + 1

KERNEL_COLUMNS = ("row", "kernel", "operator", "class", "count", "ms", "% of sum")

LEGEND = f"""\
Times of the kernels (on a CPU: operators) of one step by class, in ms, with their number in brackets. A step is a plain
forward pass, without CUDA graph.

- **profiler**: PyTorch, ONNX Runtime, TensorRT (IProfiler), Nsight Compute or Nsight Systems.
- **step ms**: median time of a step without profiler.
- **products**: matrix products of weights, with the bias, activation or quantization that the same kernel computes.
- **attention**: fused attention; in unfused attention its products, softmax, mask and scale.
- **norms and residuals**: norms, and additions of residuals and embeddings.
- **activation**: GELU and others, in kernels of their own.
- **reformat**: copies, transposes, casts, and quantization in kernels of its own.
- **other**: all other kernels, such as embeddings; also layers that TensorRT compiled as one (ForeignNode), and code
  that PyTorch compiled for a CPU without names of its parts.
- **idle**: time in which no kernel runs: gaps between kernels, on a CPU the work of Python and of the session between
  operators. TensorRT and Nsight Compute do not measure it; there it is the rest of the step.
- **sum ms, sum / step**: all classes with idle, and their share of a step without profiler. The sum differs from a step
  because of the time that the profiler takes. A difference above {TOLERANCE:.0%} is marked.
- **Against**: row with the lower precision, and the fastest row of the same backend, shape and profiler with a higher
  one. Classes are in the order of their differences.
{ROW_LEGEND}
{NOTES_LEGEND}
- **largest kernels**: names with the most time. A star stands for the number of a layer, so a row has the kernels of
  all layers. **operator** is the type of the operator, or the one that called it."""


def kernel_class_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with two tables for each model."""
    return by_machine("Kernels by class", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    lines, names = ["", one_machine(records)], model_names(records)

    def model_of(record: Record) -> tuple[str, str]:
        return names(record), record.cell.weights

    for (model, weights), members in groupby(sorted(records, key=model_of), key=model_of):
        group = sorted(members, key=_order)
        common = distinctions(group)
        lines += ["", f"### {model}, {weights} weights", *common.caption(), ""]
        lines += [fitted(COLUMNS, [_row(record, common) for record in group], KEYS)]
        if sentences := [*comparisons(group)]:
            lines += ["", *(wrapped(f"- {sentence}", "  ") for sentence in sentences)]
        largest = [row for number, record in enumerate(group, 1) for row in _largest(number, record)]
        if largest:
            lines += ["", "Largest kernels:", "", markdown(KERNEL_COLUMNS, largest)]
    return "\n".join(lines)


def _order(record: Record) -> tuple[object, ...]:
    result = _result(record)
    batch, sequence = record.cell.shapes[-1]
    return sequence, batch, result is None, 0 if result is None else result.step_ns, record.cell.id


def _result(record: Record) -> KernelsResult | None:
    return record.result if record.outcome == OK and isinstance(record.result, KernelsResult) else None


def _row(record: Record, common: Distinctions) -> list[str]:
    cell, result = record.cell, _result(record)
    batch, sequence = cell.shapes[-1]
    named, notes = [cell.backend, cell.precision, str(batch), str(sequence)], configuration(record, common.of(record))
    if result is None:
        return [*named, *[""] * (len(COLUMNS) - 5), notes_cell(f"{record.outcome}: {record.reason}", notes)]
    groups = [
        f"{_ms(spent)} ({count})" if count else "" for spent, count in times_by_class(result.step.kernels).values()
    ]
    total = [_ms(result.idle_ns), _ms(result.sum_ns), f"{1 + result.excess:.0%}"]
    return [*named, result.profiler, _ms(result.step_ns), *groups, *total, notes_cell(sum_note(result), notes)]


def sum_note(result: KernelsResult) -> str:
    """Return a note if the sum of all classes is not within `TOLERANCE` of the step; else an empty text."""
    if abs(result.excess) <= TOLERANCE:
        return ""
    return f"the sum is {abs(result.excess):.0%} {'above' if result.excess > 0 else 'below'} the step"


def comparisons(records: Sequence[Record]) -> Iterator[str]:
    """Yield a sentence for each INT8 or FP8 row: its gain or loss in each class against a higher precision."""
    for record in records:
        result, cell = _result(record), record.cell
        if result is None or cell.precision not in ("int8", "fp8"):
            continue
        others = [
            (other, its_result)
            for other in records
            if (its_result := _result(other)) is not None
            and other.cell.precision not in ("int8", "fp8")
            and (other.cell.backend, other.cell.shapes[-1]) == (cell.backend, cell.shapes[-1])
            and its_result.profiler == result.profiler
        ]
        if others:
            other, its_result = min(others, key=lambda pair: pair[1].step_ns)
            shape = "x".join(map(str, cell.shapes[-1]))
            named = f"{cell.backend} {cell.precision} against {other.cell.precision}, {shape}"
            yield f"{named}: {_compared(result, its_result)}"


def _compared(low: KernelsResult, high: KernelsResult) -> str:
    ours, theirs = _all_classes(low), _all_classes(high)
    changes = sorted(((ours[name] - theirs[name], name) for name in ours), key=lambda change: -abs(change[0]))
    listed = [f"{name} {_signed(change)}" for change, name in changes if abs(change) >= 0.01 * high.step_ns]
    step = f"step {_signed(low.step_ns - high.step_ns)} ms ({_ms(high.step_ns)} to {_ms(low.step_ns)})"
    return f"{step}; by class in ms: {', '.join(listed) or 'equal'}"


def _all_classes(result: KernelsResult) -> dict[str, float]:
    times = {name: float(spent) for name, (spent, _) in times_by_class(result.step.kernels).items()}
    return {**times, IDLE: result.idle_ns}


def _largest(number: int, record: Record) -> list[list[str]]:
    result = _result(record)
    if result is None:
        return []
    return [
        [str(number), shortened(kernel.name), kernel.kind, kernel_class(kernel.name, kernel.kind), str(kernel.count),
         _ms(kernel.nanoseconds), f"{kernel.nanoseconds / result.sum_ns:.0%}"]
        for kernel in kernels_of_all_layers(result.step.kernels)[:LARGEST]
    ]  # fmt: skip


def _ms(nanoseconds: float) -> str:
    return digits(nanoseconds / 1e6) if nanoseconds > 0 else "0"


def _signed(nanoseconds: float) -> str:
    return f"{'-' if nanoseconds < 0 else '+'}{_ms(abs(nanoseconds))}"


TABLES = {"kernel_classes": Table("suites.kernels.tables:kernel_class_tables")}

END_TABLES = "suites.kernels.kernels_end_tables:kernels_end_tables"
"""Function that makes the short tables at the end of a run."""
