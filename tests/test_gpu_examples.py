"""Figures of the handwritten sentences in the guides to builds and kernels, against the records of the H100."""

from __future__ import annotations

from conftest import ROOT

from docs.generate.gpu_examples import records_of
from docs.generate.results import H100, REFERENCE
from suites.building.advice import engines_of
from suites.building.result import SAVED_TIMINGS, BuildingResult
from suites.kernels.classes import PRODUCTS, kernel_class
from suites.kernels.layer_names import kernels_of_all_layers
from suites.kernels.result import KernelsResult
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tasks.task_scores import TaskScores


def guide(name: str) -> str:
    return " ".join((ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8").split())


def phase(record: Record, name: str) -> float:
    phases = record.artifacts.built_notes.more["phases_s"]
    assert isinstance(phases, list)
    return dict(phases)[name]


def test_a_build_is_bound_by_one_core() -> None:
    half, small = (record.artifacts for record in records_of("building"))
    assert half.built
    assert small.built
    assert (
        f"The first FP16 build uses {half.built_notes.more['processor_s']:.1f} s of processor time in "
        f"{half.built.seconds:.1f} s, and the INT8 build {small.built_notes.more['processor_s']:.1f} s in "
        f"{small.built.seconds:.1f} s."
    ) in guide("building")
    starts = [f"{phase(record, 'starting the builder'):.1f}" for record in records_of("building")]
    assert f"Starting the builder takes {starts[0]} s and {starts[1]} s of it." in guide("building")


def test_four_builders() -> None:
    """The records of kernels have the same engines, which were built beside three other builds."""
    alone = [record.artifacts.built for record in records_of("building")]
    beside = [record.artifacts.built for record in records_of("kernels")]
    assert all(alone)
    assert all(beside)
    seconds = [f"{each.seconds:.1f}" for each in beside if each]
    assert f"took {seconds[0]} s in FP16 and {seconds[1]} s in INT8" in guide("building")
    slower = [each.seconds / single.seconds for each, single in zip(beside, alone, strict=True) if each and single]
    assert f"about {4 / (sum(slower) / len(slower)):.1f} times as many engines an hour" in guide("building")


def shares(record: Record) -> dict[str, float]:
    result = record.result
    assert isinstance(result, KernelsResult)
    return {kernel.name: kernel.nanoseconds / result.sum_ns for kernel in kernels_of_all_layers(result.step.kernels)}


def test_shares_of_kernels() -> None:
    half, small = (shares(record) for record in records_of("kernels"))
    (gelu,) = [share for name, share in half.items() if kernel_class(name) == "activation"]
    assert f"GELU is a kernel of its own in each layer, {gelu:.0%} of a step" in guide("kernels")
    products = sum(share for name, share in small.items() if kernel_class(name) == PRODUCTS)
    assert 0.65 < products < 0.69
    (up,) = [share for name, share in small.items() if name.startswith("*/up")]
    norms = small["*/attention_norm"] + small["*/output_norm"]
    assert (
        f"take {up:.0%} and {small['*/down']:.0%}, attention {small['*/attention']:.0%}, and norms another {norms:.0%}"
    ) in guide("kernels")


FINDINGS = " ".join((ROOT / "docs" / "findings.md").read_text(encoding="utf-8").split())


def test_findings_about_builds() -> None:
    half, small = records_of("building")
    assert half.artifacts.built
    assert small.artifacts.built
    starts = [f"{phase(record, 'starting the builder'):.1f} s" for record in (half, small)]
    assert (
        f"takes {half.artifacts.built.seconds:.1f} s in FP16 and {small.artifacts.built.seconds:.1f} s in INT8, of "
        f"which starting the builder takes {starts[0]} and {starts[1]}."
    ) in FINDINGS
    saved = []
    for record in (half, small):
        result = record.result
        assert isinstance(result, BuildingResult)
        engines = engines_of(result, SAVED_TIMINGS)
        first = result.builds[0].engine
        assert first
        assert {(engine.output, engine.other_tactics) for engine in engines} == {(first.output, 0)}
        saved.append(sorted(f"{engine.seconds:.1f} s" for engine in engines))
    assert f"in {saved[0][0]} to {saved[0][1]} in FP16 and {saved[1][0]} in INT8" in FINDINGS


def test_fp8_of_minilm_on_two_tasks() -> None:
    """Within 0.0005 of FP32 on STS-B, and within 0.001 on BANKING77."""
    figures = {
        record.cell.lengths["task"]: record.result.figures
        for record in MachineFolder(REFERENCE, H100).records_of_backend("accuracy", "torch_packed")
        if record.cell.precision == "fp8" and isinstance(record.result, TaskScores)
    }
    stsb, banking = figures["stsb"], figures["banking77"]
    assert stsb
    assert banking
    assert abs(stsb.difference) <= 0.0005
    assert abs(banking.difference) <= 0.001
    assert (
        f"scores {stsb.value:.6f} and {banking.value:.6f}, and FP32 {stsb.reference_value:.6f} and "
        f"{banking.reference_value:.6f}."
    ) in FINDINGS
    assert f"the smallest cosines to FP32 are {stsb.cosine_min:.5f} and {banking.cosine_min:.5f}" in FINDINGS
