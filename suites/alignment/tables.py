"""Records of suite=alignment to markdown: times by size, padding to multiples, padded model sizes, and the advice."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from suites.alignment.alignment_advice import UNPADDED, Policy, change, penalty, place, policies, sentences
from suites.alignment.result import AlignmentResult, SizeVariant, Sweep, TimedShape
from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, configuration, digits, fitted, joined, notes_cell, one_machine, wrapped
from suites.tables.table import Table

POLICY_COLUMNS = ("sizes", "padded to", "mean p50 ms", "change", "most saved", "most added")

MODEL_COLUMNS = ("size", "from", "to", "outputs", "batch", "seq", "p50 ms", "change", "notes")

LEGEND = """\
Time of a step at sizes around multiples. Each cell measures all sizes twice, in ascending and then in descending order.

Padding to a multiple:

- **padded to**: each size of the row is padded up to a multiple of this number. "no padding" keeps the sizes.
- **mean p50 ms**: mean of the times of all sizes, which count equally. Padded sequences have a mask.
- **change**: of the mean time, against no padding.
- **most saved, most added**: the size with the largest change in each direction, and this change.

Sizes:

- **multiple of**: largest of the multiples that divides the size. Rows outside the range are sizes to pad to.
- **p50 ms**: mean of the median times of a step in both passes, without padding: on a GPU by events, with a CUDA graph
  if the engine can be captured, on a CPU host time.
- **ms/seq, µs/token**: this time, divided by the sequences or the tokens of the batch.
- **to 8, to 16 ...**: time against that of the next multiple, both without padding; above 0, the next multiple is
  faster.
- **padded ms**: median time if the last token of each sequence is padding, so that attention needs a mask.

Sizes of the model:

- **size, from, to**: one size of the model, and the multiple that it is padded to. Each row is a model of its own.
- **outputs**: "same" if zeros pad the weights, so that the outputs stay the same; this was checked in FP32. "other" for
  a larger hidden size, which is another model with random weights.
- **change**: of the time, against the mean of the rounds of the model itself, which begin and end the comparison.
- **notes**: times that were not steady after the warm-up, or were measured without a CUDA graph on a GPU."""


def alignment_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with the tables of each record."""
    return by_machine("Alignment", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    common = distinctions(records)
    lines = ["", one_machine(records), *common.caption()]
    for record in sorted(records, key=lambda record: record.cell.id):
        cell, result = record.cell, record.result
        lines += ["", f"### {joined(f'{cell.release}, {cell.backend} {cell.precision}')}", ""]
        if words := configuration(record, common.of(record)):
            lines += [wrapped(words), ""]
        if record.outcome != OK or not isinstance(result, AlignmentResult):
            lines += [f"{record.outcome}: {record.reason}"]
            continue
        lines += [fitted(POLICY_COLUMNS, policy_rows(result), 2), ""]
        lines += [wrapped(f"- {sentence}", "  ") for sentence in sentences(result)]
        on_gpu = cell.device != "cpu"
        if result.variants:
            lines += ["", "Sizes of the model:", "", fitted(MODEL_COLUMNS, model_rows(result), 3)]
        for sweep in result.sweeps:
            lines += ["", f"Sizes: {place(sweep)}", "", fitted(columns_of(sweep), size_rows(result, sweep, on_gpu), 2)]
    return "\n".join(lines)


def policy_rows(result: AlignmentResult) -> list[list[str]]:
    """Return a row for each sweep and multiple."""
    return [row for sweep in result.sweeps for row in _policies(result, sweep)]


def _policies(result: AlignmentResult, sweep: Sweep) -> Iterator[list[str]]:
    plain, *padded = policies(result, sweep)
    for policy in (plain, *padded):
        name = "no padding" if policy.multiple == UNPADDED else str(policy.multiple)
        changed = "" if policy is plain else f"{change(policy, plain):+.1%}"
        yield [place(sweep), name, digits(policy.mean), changed, *_extremes(policy, plain)]


def _extremes(policy: Policy, plain: Policy) -> tuple[str, str]:
    """Return the sizes that padding makes most faster and most slower, with their changes; empty if there are none."""
    changes = sorted((policy.milliseconds[size] / time - 1, size) for size, time in plain.milliseconds.items())
    (least, fastest), (most, slowest) = changes[0], changes[-1]
    return (f"{fastest}: {least:+.1%}" if least < 0 else "", f"{slowest}: {most:+.1%}" if most > 0 else "")


def model_rows(result: AlignmentResult) -> list[list[str]]:
    """Return a row for each variant of the model and each shape."""
    return [row for variant in result.variants for row in _variant(result, variant)]


def _variant(result: AlignmentResult, variant: SizeVariant) -> Iterator[list[str]]:
    named = [variant.name or "the model itself", str(variant.size or ""), str(variant.value or "")]
    if not variant.shapes:
        yield [*named, *[""] * 5, f"{variant.outcome}: {variant.reason}"]
        return
    plain = {
        (batch, sequence): statistics.fmean(group)
        for (batch, sequence), group in _by_shape(shape for model in result.models for shape in model.shapes).items()
    }
    for shape in variant.shapes:
        before = plain.get((shape.batch, shape.sequence)) if variant.name else None
        changed = "" if before is None else f"{shape.milliseconds / before - 1:+.1%}"
        steady = "" if shape.steady else "not steady after warm-up"
        outputs = "" if not variant.name else "same" if variant.exact else "other"
        times = [str(shape.batch), str(shape.sequence), digits(shape.milliseconds), changed]
        yield [*named, outputs, *times, notes_cell(steady)]


def _by_shape(shapes: Iterable[TimedShape]) -> dict[tuple[int, int], list[float]]:
    times: dict[tuple[int, int], list[float]] = {}
    for shape in shapes:
        times.setdefault((shape.batch, shape.sequence), []).append(shape.milliseconds)
    return times


def columns_of(sweep: Sweep) -> tuple[str, ...]:
    against = tuple(f"to {multiple}" for multiple in sweep.multiples)
    return ("batch", "seq", "multiple of", "p50 ms", "ms/seq", "µs/token", *against, "padded ms", "notes")


def size_rows(result: AlignmentResult, sweep: Sweep, on_gpu: bool) -> list[list[str]]:
    """Return a row for each size of a sweep, and for each size that others are padded to."""
    sizes = {sweep.shape(size): size for size in sweep.targets()}
    return [_row(result, sweep, sizes[shape.batch, shape.sequence], shape, on_gpu) for shape in result.measured(sweep)]


def _row(result: AlignmentResult, sweep: Sweep, size: int, shape: TimedShape, on_gpu: bool) -> list[str]:
    time = shape.milliseconds
    padded = result.milliseconds(sweep, size, True)
    multiples = [multiple for multiple in sweep.multiples if size % multiple == 0]
    penalties = [penalty(result, sweep, size, each) if size in sweep.sizes else None for each in sweep.multiples]
    return [
        str(shape.batch),
        str(shape.sequence),
        str(max(multiples)) if multiples else "",
        digits(time),
        digits(time / shape.batch),
        digits(1e3 * time / (shape.batch * shape.sequence)),
        *("" if share is None else f"{share:+.1%}" for share in penalties),
        "" if padded is None else digits(padded),
        notes_cell(
            "" if shape.steady else "not steady after warm-up",
            "no CUDA graph" if on_gpu and not shape.cuda_graph else "",
        ),
    ]


TABLES = {"alignment": Table("suites.alignment.tables:alignment_tables")}

END_TABLES = "suites.alignment.alignment_end_tables:alignment_end_tables"
"""Function that makes the short tables at the end of a run."""

PLOTS = "suites.alignment.alignment_plots:write_alignment_plots"
"""Function that writes the plots of a machine."""
