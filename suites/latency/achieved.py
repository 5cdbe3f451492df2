"""Operations of a latency row per second, and their share of the fastest product of the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from backends.model.encoder_sizes import EncoderSizes, encoder_sizes
from backends.registry import descriptions
from suites.ceilings.result import CeilingsResult
from suites.latency.figures import LatencyRow
from suites.records.cell import short_digest
from suites.records.record import OK, Record
from suites.root import CONF


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
    sizes = _sizes(row.record)
    if sizes is None or row.pace <= 0:
        return None
    tokens = row.tokens if packs_tokens(row.record) else row.batch * row.sequence
    return sizes.operations(tokens, tokens / row.batch) / row.pace / 1e3


def ceiling(row: LatencyRow, ceilings: Iterable[Record]) -> float | None:
    """Return the fastest product of the row's precision in TFLOP/s or TOP/s; None if it was not measured.

    Args:
        ceilings: records of suite=ceilings of the same machine. On a CPU they need the same number of threads.
    """
    cell = row.record.cell
    rates = [
        record.result.fastest_product(cell.precision)
        for record in ceilings
        if record.outcome == OK
        and isinstance(record.result, CeilingsResult)
        and record.cell.device == cell.device
        and (cell.device != "cpu" or record.cell.options.get("threads") == cell.options.get("threads"))
    ]
    return max((rate for rate in rates if rate is not None), default=None)


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
