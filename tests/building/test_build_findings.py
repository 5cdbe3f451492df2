"""Figures of builds in the findings of the H100."""

from __future__ import annotations

import re

from conftest import ROOT

from suites.records.results_folder import MachineFolder

REFERENCE = ROOT / "results" / "reference"


def seconds() -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """Return wall time, processor time and start of the builder in s, by model, precision and output."""
    times = {}
    for record in MachineFolder(REFERENCE, "nvidia-h100-80gb-hbm3-driver-580.159.04").records("latency"):
        built, cell = record.artifacts.built, record.cell
        if record.harness == 4 and cell.backend == "trt_plugin" and built is not None:
            more = record.artifacts.built_notes.more
            times[cell.model, cell.precision, cell.output] = (
                built.seconds, more["processor_s"], dict(more["phases_s"])["starting the builder"],
            )  # fmt: skip
    return times


def test_build_times_in_the_findings_are_those_of_the_records() -> None:
    text = " ".join((REFERENCE / "findings" / "h100.md").read_text(encoding="utf-8").split())
    section, times = text.split("## Builds of engines of plugins")[1].split("## ")[0], seconds()
    bert = [times["bert_base", precision, "embedding"] for precision in ("int8", "fp16")]
    (int8, int8_cpu), (fp16, fp16_cpu) = ([round(value) for value in row[:2]] for row in bert)
    assert (
        f"takes {int8} s, {int8_cpu} s of them on the processor, and FP16 with the cubic {fp16} s and {fp16_cpu} s"
        in section
    )
    warm = [round(times["bert_base", precision, "hidden"][0]) for precision in ("int8", "fp16")]
    assert f"take {warm[0]} s in INT8 and {warm[1]} s in FP16" in section
    small = {
        (model, precision): round(times[model, precision, output][0])
        for model, output in (("ms_marco_minilm", "score"), ("bge_small", "embedding"))
        for precision in ("fp16", "int8")
    }
    assert f"takes {small['ms_marco_minilm', 'fp16']} s, after bge_small" in section
    assert f"took {small['bge_small', 'fp16']} s" in section
    assert f"{small['ms_marco_minilm', 'int8']} s after {small['bge_small', 'int8']} s" in section
    low, high = map(int, re.search(r"builder takes (\d+) to (\d+) s", section).groups())  # type: ignore[union-attr]
    starts = [start for *_, start in times.values()]
    assert low == round(min(starts))
    assert high == round(max(starts))
    minilm = [round(times["all-MiniLM-L6-v2", precision, "embedding"][0]) for precision in ("int8", "fp16")]
    assert f"minilm with four profiles takes {minilm[0]} s in INT8 and {minilm[1]} s in FP16" in section
