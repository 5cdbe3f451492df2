"""Figures of the handwritten sentences in the guides to builds and kernels, against the records of the H100."""

from __future__ import annotations

from conftest import ROOT

from docs.generate.gpu_examples import records_of
from suites.kernels.classes import PRODUCTS, kernel_class
from suites.kernels.layer_names import kernels_of_all_layers
from suites.kernels.result import KernelsResult
from suites.records.record import Record


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
        f"The first FP16 build uses {half.built_notes.more['processor_s']:.1f} s of processor time in {half.built.seconds:.1f} "
        f"s, and the INT8 build {small.built_notes.more['processor_s']:.1f} s in {small.built.seconds:.1f} s."
    ) in guide("building")
    starts = [f"{phase(record, 'starting the builder'):.1f}" for record in records_of("building")]
    assert f"Starting the builder takes {starts[0]} s and {starts[1]} s of it." in guide("building")


def test_four_builders() -> None:
    """The engines of the records of kernels were built beside three other builds; they are those of the first builds."""
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
