"""Examples from GPUs: builds and kernels of plugins on the H100, and launches of eager PyTorch on the H200."""

from __future__ import annotations

from collections.abc import Sequence

from docs.generate.loads import H200
from docs.generate.results import H100, REFERENCE
from suites.building.advice import sentences
from suites.building.result import BuildingResult
from suites.building.tables import COLUMNS, rows_of
from suites.kernels.classes import CLASSES, IDLE, times_by_class
from suites.kernels.result import KernelsResult
from suites.kernels.tables import comparisons
from suites.launch.launch_advice import sentences as launch_sentences
from suites.launch.result import LaunchResult
from suites.launch.tables import COLUMNS as LAUNCH_COLUMNS
from suites.launch.tables import rows_of as launch_rows
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import digits, markdown, wrapped

LAUNCHES = ("batch", "graph", "enqueue ms", "Python", "step ms", "GPU ms", "GPU waits")
SHOWN = ("build", "build s", "p50 ms", "to first", "other tactics", "output", "file")


def records_of(suite: str) -> Sequence[Record]:
    """Return the records of BERT-base through plugins, FP16 before INT8."""
    records = MachineFolder(REFERENCE, H100).records_of_backend(suite, "trt_plugin")
    return sorted(records, key=lambda record: record.cell.precision)


def build_table() -> str:
    """Return the builds of both precisions in one table, and the sentences about each precision."""
    rows, texts = [], []
    for record in records_of("building"):
        result, precision = record.result, record.cell.precision
        assert isinstance(result, BuildingResult)
        for row in rows_of(result):
            cells = dict(zip(COLUMNS, row, strict=True))
            rows.append([precision, *(cells[name] for name in SHOWN)])
        texts += [wrapped(f"- {precision}: {_small(text)}", "  ") for text in sentences(result)]
    return "\n".join([markdown(("precision", *SHOWN), rows), "", *texts])


def kernel_table() -> str:
    """Return the times by class of both precisions, and the comparison."""
    records, rows = records_of("kernels"), []
    for record in records:
        result = record.result
        assert isinstance(result, KernelsResult)
        spent = [time for time, _ in times_by_class(result.step.kernels).values()]
        times = (digits(time / 1e6) if time else "" for time in (result.step_ns, *spent, result.idle_ns))
        rows.append([record.cell.precision, *times])
    texts = [wrapped(f"- {text}", "  ") for text in comparisons(records)]
    return "\n".join([markdown(("precision", "step ms", *CLASSES, IDLE), rows), "", *texts])


def launch_table() -> str:
    """Return the steps of eager PyTorch by batch, and the advice."""
    (record,) = MachineFolder(REFERENCE, H200).records("launch")
    result = record.result
    assert isinstance(result, LaunchResult)
    shown = [LAUNCH_COLUMNS.index(name) for name in LAUNCHES]
    rows = [[row[column] for column in shown] for row in launch_rows(record, result)]
    texts = [wrapped(f"- {text}", "  ") for text in launch_sentences(result)]
    return "\n".join([markdown(LAUNCHES, rows), "", *texts])


def _small(sentence: str) -> str:
    """Return a sentence that follows a colon."""
    return sentence[0].lower() + sentence[1:]
