"""Operations of a latency row per second, and their share of the fastest product of the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from backends.model.encoder_sizes import EncoderSizes, encoder_sizes
from backends.registry import descriptions
from suites.ceilings.result import CeilingsResult
from suites.latency.figures import LatencyRow
from suites.records.cell import short_digest
from suites.records.record import OK, Record
from suites.root import CONF

VALUE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
"""Bytes of a number in memory, by precision. In INT8 and FP8, all operands of products count with one byte."""


def packs_tokens(record: Record) -> bool:
    """Return whether the cell computed tokens without padding. The backend may be missing on this machine."""
    backend, layout = descriptions().get(record.cell.backend), record.cell.options.get("layout", "")
    return layout == "packed" or (layout == "" and backend is not None and backend.packs_tokens)


def achieved(row: LatencyRow) -> float | None:
    """Return the TFLOP/s (for INT8 TOP/s) of passes that run back to back; None if the sizes are not known.

    Operations are those of `EncoderSizes.operations`, whatever precision a product has. A backend that packs computes
    the tokens without padding; their attention counts as if all sequences had the mean length, which is a lower bound,
    because a record does not have the lengths. Other backends compute padding as well, so it counts.
    """
    return _rate(row, row.pace)


def achieved_with(row: LatencyRow, graph: bool) -> float | None:
    """Return the TFLOP/s of passes without or with CUDA graph, as `achieved` does; None if they were not measured."""
    return _rate(row, row.pace_of(graph))


def _rate(row: LatencyRow, pace: float | None) -> float | None:
    sizes = _sizes(row.record)
    if sizes is None or not pace or pace <= 0:
        return None
    tokens = computed_tokens(row)
    return sizes.operations(tokens, tokens / row.batch) / pace / 1e3


def achieved_in_passes(record: Record, passes: Sequence[tuple[int, int]], tokens: int, pace: float) -> float | None:
    """Return the TFLOP/s of a batch that runs in passes, as `achieved` does; None if the sizes are not known.

    Args:
        passes: sequences and length of each pass.
        tokens: tokens of the batch without padding.
        pace: time of the batch in ns, with passes back to back.
    """
    sizes = _sizes(record)
    if sizes is None or pace <= 0:
        return None
    if packs_tokens(record):
        return sizes.operations(tokens, tokens / sum(rows for rows, _ in passes)) / pace / 1e3
    return sum(sizes.operations(rows * longest, longest) for rows, longest in passes) / pace / 1e3


def computed_tokens(row: LatencyRow) -> int:
    """Return the tokens that a pass computes: with padding, unless the backend packs."""
    return row.tokens if packs_tokens(row.record) else row.batch * row.sequence


def intensity(row: LatencyRow) -> float | None:
    """Return the operations per byte of a pass; None if the sizes or the bytes of a number are not known.

    The bytes are those of `EncoderSizes.values_moved` in numbers of the row's precision: the least traffic without
    fusion of products. The measured traffic of a path may be larger or, with weights that stay in a cache, smaller.
    """
    sizes, width = _sizes(row.record), VALUE_BYTES.get(row.record.cell.precision)
    if sizes is None or width is None:
        return None
    tokens = computed_tokens(row)
    return sizes.operations(tokens, tokens / row.batch) / (width * sizes.values_moved(tokens))


def share(rate: float | None, most: float | None) -> float | None:
    """Return a rate in percent of the ceiling; None if one of both is not known."""
    return None if rate is None or not most else 100 * rate / most


def ceiling(record: Record, ceilings: Iterable[Record]) -> float | None:
    """Return the fastest product of the record's precision in TFLOP/s or TOP/s; None if it was not measured.

    Args:
        ceilings: records of suite=ceilings of the same machine. On a CPU they need the same number of threads.
    """
    rates = [result.fastest_product(record.cell.precision) for result in _results(record, ceilings)]
    return max((rate for rate in rates if rate is not None), default=None)


def bandwidth(record: Record, ceilings: Iterable[Record]) -> float | None:
    """Return the GB/s of the device's memory from the records that `ceiling` takes; None if it was not measured."""
    rates = [result.bandwidth for result in _results(record, ceilings)]
    return max((rate for rate in rates if rate is not None), default=None)


def _results(record: Record, ceilings: Iterable[Record]) -> Iterator[CeilingsResult]:
    """Yield the results of the record's device and, on a CPU, of its number of threads."""
    cell = record.cell
    for other in ceilings:
        same = other.cell.device == cell.device
        threads = cell.device != "cpu" or other.cell.options.get("threads") == cell.options.get("threads")
        if other.outcome == OK and isinstance(other.result, CeilingsResult) and same and threads:
            yield other.result


def _sizes(record: Record) -> EncoderSizes | None:
    """Return the sizes in a record. For an older record they are those of the model of this name in suites/conf."""
    weights, cell = record.artifacts.weights, record.cell
    if weights is not None and weights.sizes is not None:
        return weights.sizes
    architecture = _architectures().get(cell.model)
    if architecture is None or (cell.weights != "trained" and short_digest(architecture) != cell.model_version):
        return None
    return encoder_sizes(architecture)


@cache
def _architectures() -> Mapping[str, Mapping[str, object]]:
    """Return model.architecture of each file in suites/conf/model, by the name of the file and of its hub id."""
    from yaml import safe_load  # type: ignore[import-untyped]  # a dependency of OmegaConf

    found: dict[str, Mapping[str, object]] = {}
    for file in sorted((CONF / "model").glob("*.yaml")):
        model = safe_load(file.read_text(encoding="utf-8"))
        names = (file.stem, str(model.get("hub", "")).rpartition("/")[2])
        found |= dict.fromkeys(names, model.get("architecture", {}))
    return found
