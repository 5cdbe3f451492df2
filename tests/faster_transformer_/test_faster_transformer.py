"""The backend with a library in numpy: outputs, padding, heads, INT8, and refusals. No GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_library
import numpy as np
import pytest
import torch
from conftest import OTHER_MODELS, TINY

from backends.base import Artifact, BuildSpec, Device, Feeds, Shape, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.faster_transformer_.description import FasterTransformerKeys, FasterTransformerOptions
from backends.faster_transformer_.faster_transformer import FasterTransformer, batches_of, check_int8_sizes
from backends.faster_transformer_.int8_scales import FACTORS, PLACES, calibrate, scale_list
from backends.faster_transformer_.operator_weights import operator_weights
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.model.identity import identity_of
from backends.model_output import LAST_HIDDEN, Output
from backends.onnx_.onnx_source import prepare_source
from backends.options import Layout, SharedKeys
from backends.quantization_options import QuantizationOptions, Scheme
from backends.registry import describe
from backends.value_checks import Refused
from suites.measuring.output_difference import compare_with_reference

SHAPES = (Shape(1, 8), Shape(4, 24), Shape(12, 16), Shape(1, 8))
TEXTS = ["a line", "another line", "a third"]
CALIBRATION = QuantizationOptions(samples=16, sequence=24)
INT8_SIZES = {"model_type": "bert", **TINY, "intermediate_size": 256}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a library, whose operators are those of fake_library.py."""
    path = tmp_path / "libth_transformer.so"
    path.write_bytes(b"not a library of this machine")
    loaded: list[str] = []
    fake_library.install(monkeypatch, loaded.append)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_library.perturbed_checkpoint(tmp_path_factory.mktemp("bert"), INT8_SIZES)


def spec(library: Path | str, cache: ArtifactCache, precision: str = "fp32", **options: Any) -> BuildSpec:
    typed = FasterTransformerOptions(str(library), **options)
    return BuildSpec(precision, Device(), SHAPES, False, cache.root, typed, CALIBRATION)


def built(requested: BuildSpec, folder: Path, cache: ArtifactCache) -> Artifact:
    backend = FasterTransformer()
    backend.check(requested)
    source = prepare_source(
        folder, identity_of(folder), backend.source_form(requested), CALIBRATION, TEXTS, 0, cache,
        output=requested.output,
    )  # fmt: skip
    return backend.build(requested, source)


def batches(
    folder: Path, cache: ArtifactCache, distribution: str, output: Output = LAST_HIDDEN
) -> Iterator[tuple[Feeds, Any, Any]]:
    """Yield inputs, reference and rows of each shape."""
    lengths = Lengths(distribution, "random", 3)
    origin = InputSource(folder, identity_of(folder), lengths, TEXTS, 0, "cpu", cache, output)
    arrays = np.load(prepare_inputs(origin, sorted(set(SHAPES))).path)
    for shape in SHAPES:
        own = {name.split("/")[1]: arrays[name] for name in arrays.files if name.startswith(f"{shape}/")}
        yield {name: own[name] for name in own if name not in ("reference", "rows")}, own["reference"], own["rows"]


@pytest.mark.parametrize(
    ("precision", "least", "options"),
    [
        ("fp32", 0.9999, {}),
        ("fp32", 0.9999, {"layout": Layout.fixed}),
        ("fp16", 0.9999, {}),
        ("int8", 0.99, {}),
        ("int8", 0.99, {"layout": Layout.fixed}),
        ("int8", 0.97, {"int8_mode": 2}),
    ],
)
@pytest.mark.parametrize("distribution", ["full", "uniform"])
def test_outputs_match_the_reference(
    precision: str, least: float, options: dict[str, Any], distribution: str,
    folder: Path, library: Path, shared_cache: ArtifactCache,
) -> None:  # fmt: skip
    requested = spec(library, shared_cache, precision, **options)
    artifact = built(requested, folder, shared_cache)
    with FasterTransformer().open(requested, artifact) as session:
        for feeds, reference, rows in batches(folder, shared_cache, distribution):
            session.load(feeds)
            session.step()
            session.wait()
            check = compare_with_reference(session.fetch(), reference, rows, feeds["attention_mask"])
            assert check.nonfinite == 0
            assert check.cosine is not None
            assert check.cosine >= least


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_embeddings_leave_out_the_undefined_values_of_padding(
    pooling: str, folder: Path, library: Path, shared_cache: ArtifactCache
) -> None:
    output = Output("embedding", (pooling,), True, per_token=False)
    requested = replace(spec(library, shared_cache), output=output)
    artifact = built(requested, folder, shared_cache)
    with FasterTransformer().open(requested, artifact) as session:
        for feeds, reference, rows in batches(folder, shared_cache, "uniform", output):
            np.testing.assert_allclose(session.answer(feeds)[rows], reference, atol=2e-2)


def test_a_graph_is_refused(folder: Path, library: Path, shared_cache: ArtifactCache) -> None:
    assert not describe("faster_transformer").cuda_graph
    requested = spec(library, shared_cache, layout=Layout.fixed)
    with FasterTransformer().open(requested, built(requested, folder, shared_cache)) as session:
        session.load({name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask")})
        session.step()
        with pytest.raises(Unsupported, match="cannot record FasterTransformer, which waits for the GPU in each pass"):
            session.capture()


def test_tokens_after_padding_are_refused(folder: Path, library: Path, shared_cache: ArtifactCache) -> None:
    """The operator gets the number of tokens of each sequence, not their places."""
    requested = spec(library, shared_cache)
    feeds = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask")}
    feeds["attention_mask"][0, 0] = 0
    with (
        FasterTransformer().open(requested, built(requested, folder, shared_cache)) as session,
        pytest.raises(ValueError, match="move its tokens to the front"),
    ):
        session.load(feeds)


def test_the_list_of_scales_has_the_layout_of_the_library(
    folder: Path, library: Path, shared_cache: ArtifactCache
) -> None:
    artifact = built(spec(library, shared_cache, "int8"), folder, shared_cache)
    arrays = dict(np.load(artifact.path))
    weights = operator_weights(arrays)
    ranges: Any = artifact.notes["int8_ranges"]
    assert set(ranges[0]) == {*PLACES} - {"next_input"}
    scales = scale_list(ranges, weights, 1)
    assert scales.shape == (2, 72 + 9 * 64 + 8 + 3 + 21)
    largest = ranges[0]["gelu"]
    np.testing.assert_allclose(scales[0, 52:56], [largest, largest / 127, largest / 127**2, 127 / largest], rtol=1e-6)
    assert scales[0, 60] == np.float32(ranges[1]["input"])
    np.testing.assert_allclose(scales[1, 72 + 4 * 64 : 72 + 8 * 64], np.abs(weights["up_kernel"][1]).max(0))
    scores = ranges[0]["query"] * ranges[0]["key"] / (127 * ranges[0]["scores"])
    assert scales[0, 72 + 9 * 64 + [*FACTORS].index(("query", "key", "scores"))] == np.float32(scores)
    in_one = scale_list(ranges, weights, 2)
    assert set(in_one[1, 72 + 8 * 64 : 72 + 9 * 64]) == {np.abs(weights["down_kernel"][1]).max()}


def test_padding_does_not_change_the_ranges(folder: Path, library: Path, shared_cache: ArtifactCache) -> None:
    artifact = built(spec(library, shared_cache), folder, shared_cache)
    arrays = dict(np.load(artifact.path))
    weights = operator_weights(arrays)
    short = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.ones((1, 3), np.int32)}
    padded = {"input_ids": np.array([[5, 6, 7, 400, 9]]), "attention_mask": np.array([[1, 1, 1, 0, 0]])}
    sizes = {"heads": 2.0, "epsilon": 1e-12}
    first, second = (calibrate(arrays, weights, sizes, iter([feeds])) for feeds in (short, padded))
    assert first == second
    other = calibrate(arrays, weights, sizes, iter([{**padded, "attention_mask": np.ones((1, 5), np.int32)}]))
    assert other != second


def test_calibration_inputs_are_read_by_batch(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, input_ids=np.arange(6).reshape(3, 1, 2), attention_mask=np.ones((3, 1, 2)))
    read = list(batches_of(Artifact(path, "")))
    assert [feeds["input_ids"].tolist() for feeds in read] == [[[0, 1]], [[2, 3]], [[4, 5]]]


def test_a_library_that_is_missing_is_explained(shared_cache: ArtifactCache, tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"build libth_transformer\.so from https://github\.com/NVIDIA/Faster.*PYT=ON"
    ):
        FasterTransformer().check(spec("", shared_cache))
    with pytest.raises(Unavailable, match="is not a file"):
        FasterTransformer().check(spec(tmp_path / "gone.so", shared_cache))
    keys = {"faster_transformer": FasterTransformerKeys(str(tmp_path / "gone.so"))}
    with pytest.raises(Refused, match=r"gone\.so is not a file; give the path of libth_transformer\.so"):
        FasterTransformerOptions.resolved(SharedKeys(), keys)


def test_a_library_that_cannot_be_loaded_is_explained(
    folder: Path, library: Path, shared_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    requested = spec(library, shared_cache)
    artifact = built(requested, folder, shared_cache)
    with pytest.raises(Unavailable, match=r"cannot be loaded: .*(invalid ELF|too short).*; build it with this Python"):
        FasterTransformer().open(requested, artifact)


def test_a_library_without_the_operator_is_explained(
    folder: Path, library: Path, shared_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.classes, "load_library", lambda path: None)
    requested = spec(library, shared_cache)
    artifact = built(requested, folder, shared_cache)
    with pytest.raises(Unavailable, match=r"has no class FasterTransformer\.Bert; .*DBUILD_PYT=ON"):
        FasterTransformer().open(requested, artifact)


def test_a_library_without_bf16_is_explained(folder: Path, library: Path, shared_cache: ArtifactCache) -> None:
    requested = spec(library, shared_cache, "bf16")
    artifact = built(requested, folder, shared_cache)
    with pytest.raises(Unsupported, match=r"built without torch\.bfloat16; use precision=fp16 or fp32"):
        FasterTransformer().open(requested, artifact)


@pytest.mark.parametrize(
    ("precision", "options", "scheme", "reason"),
    [
        ("fp8", {}, Scheme.explicit, "not in fp8"),
        ("tf32", {}, Scheme.explicit, "not in tf32"),
        ("fp16", {"int8_mode": 2}, Scheme.explicit, "int8_mode is for precision=int8; leave it out"),
        ("int8", {}, Scheme.implicit, "use quantization.scheme=explicit"),
        ("int8", {}, Scheme.dynamic, "use quantization.scheme=explicit"),
    ],
)
def test_other_precisions_and_options_are_refused(
    precision: str, options: dict[str, Any], scheme: Scheme, reason: str, library: Path, shared_cache: ArtifactCache
) -> None:
    requested = spec(library, shared_cache, precision, **options)
    requested = replace(requested, quantization=replace(CALIBRATION, scheme=scheme))
    with pytest.raises(Unsupported, match=reason):
        FasterTransformer().check(requested)


def test_int8_on_a_gpu_without_int8_tensor_cores_is_refused(library: Path, shared_cache: ArtifactCache) -> None:
    requested = spec(library, shared_cache, "int8")
    versions = ((7, 0), (7, 5), (8, 9), (9, 0))
    volta, turing, ada, hopper = (Device("cuda", name="T", compute_capability=version) for version in versions)
    with pytest.raises(Unsupported, match=r"needs compute capability 7\.5; T is older; use precision=fp16"):
        FasterTransformer().check(replace(requested, device=volta))
    with pytest.raises(Unsupported, match=r"wrong outputs on Hopper and later GPUs, such as T; use precision=fp16"):
        FasterTransformer().check(replace(requested, device=hopper))
    for device in (turing, ada):
        FasterTransformer().check(replace(requested, device=device))


@pytest.mark.parametrize("family", OTHER_MODELS)
def test_other_families_are_refused(
    family: str, tiny: Callable[[str], tuple[Path, str]], library: Path, shared_cache: ArtifactCache
) -> None:
    reason = f"faster_transformer\\) is not supported for model type '{family}', because its .* use backend="
    with pytest.raises(Unsupported, match=reason):
        built(spec(library, shared_cache), tiny(family)[0], shared_cache)


def test_int8_of_other_sizes_is_refused() -> None:
    sizes = {"0/up_weight": np.zeros((128, 64)), "0/qkv_weight": np.zeros((3, 2, 32, 64))}
    with pytest.raises(Unsupported, match="4 times the hidden size 64, and this model has 128; use precision=fp16"):
        check_int8_sizes(sizes)
    sizes = {"0/up_weight": np.zeros((256, 64)), "0/qkv_weight": np.zeros((3, 4, 16, 64))}
    with pytest.raises(Unsupported, match="a head size that is a multiple of 32, and this model has 16"):
        check_int8_sizes(sizes)


def test_another_mode_is_refused() -> None:
    with pytest.raises(Refused, match=r"faster_transformer\.int8_mode=3 must be between 1 and 2"):
        FasterTransformerKeys(int8_mode=3)


def test_a_cell_names_the_library_by_its_content(tmp_path: Path) -> None:
    library, copy = tmp_path / "lib.so", tmp_path / "other" / "lib.so"
    copy.parent.mkdir()
    library.write_bytes(b"a")
    copy.write_bytes(b"a")
    cells = [FasterTransformerOptions(str(path)).for_cell() for path in (library, copy)]
    assert cells[0] == cells[1] == {"layout": "packed", "library": "lib.so ca978112ca1bbdca"}
    copy.write_bytes(b"b")
    assert FasterTransformerOptions(str(copy)).for_cell() != cells[0]
    assert FasterTransformerOptions().for_cell() == {"layout": "packed", "library": ""}
