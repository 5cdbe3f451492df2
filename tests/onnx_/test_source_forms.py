"""Variants of the ONNX file for backends: Q/DQ by placement, casts and rewrites, each compared with the FP32 graph."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import rounding_session
from polygraphy.comparator import IterationResult, SimpleCompareFunc
from safetensors.torch import load_file, save_file

from backends.base import Artifact, SourceForm, Unavailable
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.model.layer_names import WEIGHT_PRODUCTS
from backends.model.weights import encoder_weights
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.gelu_shift import GELU_MINIMUM, bias_correction, centred_range
from backends.onnx_.onnx_casts import cast_onnx
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.onnx_.quantize import quantize_onnx
from backends.onnx_.smoothquant import fold_arrays, smooth_onnx
from backends.onnx_.surgery import REWRITES, apply_rewrites
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions

TEXTS = ["a line", "another line", "a third"]
INT8 = QuantizationOptions(samples=8, sequence=24, activation=Activation.int8, reduce_range=Switch.off)

Tiny = Callable[[str], tuple[Path, str]]


def exported(tiny: Tiny, cache: ArtifactCache, family: str = "bert") -> Artifact:
    return export_onnx(*tiny(family), cache)


def outputs(artifact: Artifact, folder: Path) -> IterationResult:
    """Run one padded batch with onnxruntime's CPU provider, and return its outputs in FP32."""
    feeds = calibration_batches(folder, TEXTS, CalibrationSize(4, 24), 1)[0]
    (hidden,) = rounding_session(artifact.path).run(None, feeds)
    return IterationResult({"last_hidden_state": hidden.astype(np.float32)}, runner_name=artifact.path.parent.name)


def agree(first: Artifact, second: Artifact, folder: Path, atol: float) -> bool:
    compared = SimpleCompareFunc(atol=atol, rtol=0)(outputs(first, folder), outputs(second, folder))
    return all(bool(result) for result in compared.values())


@pytest.mark.parametrize(
    ("placement", "family", "pairs"),
    [
        ("gemm", "bert", {"MatMul": 12}),
        ("ffn", "distilbert", {"MatMul": 4}),
        ("attention", "electra", {"MatMul": 12}),
        ("all", "roberta", {"MatMul": 16, "Add": 4}),
    ],
)
def test_a_placement_quantizes_its_nodes_and_stays_near_fp32(
    placement: str, family: str, pairs: dict[str, int], tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, _ = tiny(family)
    source = exported(tiny, shared_cache, family)
    options = replace(INT8, placement=Placement[placement])
    batches = lambda: calibration_batches(folder, TEXTS, CalibrationSize(8, 24), 0)  # noqa: E731
    artifact = quantize_onnx(source, "int8", options, CalibrationInputs(batches, {"family": family}), shared_cache)
    graph = onnx.load(str(artifact.path)).graph
    producers = {output: node for node in graph.node for output in node.output}
    quantized = Counter(
        node.op_type
        for node in graph.node
        if len(node.input) == 2
        and all(producers.get(name) and producers[name].op_type == "DequantizeLinear" for name in node.input)
    )
    assert quantized == pairs
    assert artifact.notes["quantized"] == sum(pairs.values())
    zeros = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("zero_point")}
    assert zeros
    assert all(not values.any() and values.dtype == np.int8 for values in zeros.values())
    assert agree(artifact, source, folder, atol=0.4)


def test_weights_stay_fp32_before_their_qdq_pair(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    """TensorRT 8.6 reads no INT8 constants."""
    form = SourceForm(quantized="int8")
    folder, sha256 = tiny("bert")
    source = prepare_source(folder, sha256, form, replace(INT8, placement=Placement.gemm), TEXTS, 0, shared_cache)
    assert source.onnx is not None
    graph = onnx.load(str(source.onnx.path)).graph
    large = [i for i in graph.initializer if len(i.dims) == 2]
    assert {i.data_type for i in large} == {onnx.TensorProto.FLOAT}


def test_fp8_uses_the_opset_that_supports_it(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, _ = tiny("bert")
    batches = lambda: calibration_batches(folder, TEXTS, CalibrationSize(8, 24), 0)  # noqa: E731
    options = replace(INT8, placement=Placement.gemm)
    artifact = quantize_onnx(exported(tiny, shared_cache), "fp8", options, CalibrationInputs(batches), shared_cache)
    assert artifact.notes["opset"] == 19
    types = {i.data_type for i in onnx.load(str(artifact.path)).graph.initializer if i.name.endswith("zero_point")}
    assert types == {onnx.TensorProto.FLOAT8E4M3FN}


@pytest.mark.parametrize(("types", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
@pytest.mark.parametrize("quantized", ["", "int8"])
def test_a_cast_graph_has_explicit_types(
    types: str, kind: int, quantized: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny("bert")
    form = SourceForm(types=types, keep_fp32=("*/LayerNormalization",), quantized=quantized)
    quantization = replace(INT8, placement=Placement.all)
    source = prepare_source(folder, sha256, form, quantization, TEXTS, 0, shared_cache)
    assert source.onnx is not None
    assert source.onnx.notes["kept_fp32"] == 5
    model = onnx.load(str(source.onnx.path))
    onnx.checker.check_model(model, full_check=True)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert [o.type.tensor_type.elem_type for o in typed.graph.output] == [kind]
    weights = {i.data_type for i in model.graph.initializer if len(i.dims) == 2 and "MatMul" not in i.name}
    assert weights == {kind}
    producers = {output: node for node in model.graph.node for output in node.output}
    uncast = Counter(
        node.op_type
        for node in model.graph.node
        if len(node.input) == 2 and {producers[n].op_type for n in node.input if n in producers} == {"DequantizeLinear"}
    )
    assert uncast == ({"MatMul": 16, "Add": 4} if quantized else {})
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert all(producers[norm.input[0]].op_type in ("Cast", "DequantizeLinear") for norm in norms)
    if types == "fp16":  # onnxruntime's CPU provider has no BF16 addition
        assert agree(source.onnx, exported(tiny, shared_cache), folder, atol=0.4 if quantized else 0.01)


def test_a_bf16_weight_is_the_rounded_fp32_one(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    source = exported(tiny, shared_cache)
    cast = cast_onnx(source, "bf16", (), shared_cache)
    original, rounded = (
        {i.name: onnx.numpy_helper.to_array(i).astype(np.float32) for i in onnx.load(str(a.path)).graph.initializer}
        for a in (source, cast)
    )
    name = "encoder.embeddings.word_embeddings.weight"
    assert np.abs(rounded[name] - original[name]).max() > 0
    np.testing.assert_allclose(rounded[name], original[name], rtol=2**-8, atol=1e-30)


def test_a_pattern_that_matches_nothing_is_an_error(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    with pytest.raises(ValueError, match=r"\*norm9\* matches none of \d+ names"):
        cast_onnx(exported(tiny, shared_cache), "fp16", ("*norm9*",), shared_cache)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
@pytest.mark.parametrize(
    ("rewrite", "changes", "atol"),
    # The cubic is another function. It differs by up to 4.7e-4 in each of two layers.
    [("constant_reshapes", 8, 1e-5), ("merged_qkv", 2, 1e-5), ("sigmoid_gelu", 2, 1e-5), ("cubic_gelu", 2, 5e-3)],
)
def test_a_rewrite_keeps_the_outputs(
    rewrite: str, changes: int, atol: float, family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    source = exported(tiny, shared_cache, family)
    rewritten = apply_rewrites(source, [rewrite], shared_cache)
    assert rewritten.notes["rewrites"] == {rewrite: changes}
    assert rewritten.notes["opset"] == 17
    onnx.checker.check_model(onnx.load(str(rewritten.path)), full_check=True)
    assert agree(rewritten, source, tiny(family)[0], atol=atol)


def test_the_command_line_offers_every_rewrite() -> None:
    from backends.tensorrt_.runtime.tensorrt_options import Rewrite

    assert [rewrite.name for rewrite in Rewrite] == list(REWRITES)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_smoothing_keeps_fp32_outputs_and_improves_int8(
    family: str, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    """One input channel of the products is thirty times larger than the others, as in trained models."""
    folder, _ = tiny(family)
    shutil.copytree(folder, tmp_path / "odd")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("LayerNorm.weight") or name.endswith("layer_norm.weight"):
            weights[name][3] *= 30
    save_file(weights, tmp_path / "odd" / "model.safetensors", {"format": "pt"})
    odd = tmp_path / "odd"
    source = export_onnx(odd, f"odd {family}", shared_cache)
    batches = lambda: calibration_batches(odd, TEXTS, CalibrationSize(8, 24), 0)  # noqa: E731
    smoothed = smooth_onnx(source, 0.5, WEIGHT_PRODUCTS, CalibrationInputs(batches), shared_cache)
    assert smoothed.notes["smoothed"] == 12
    before, after = (
        Counter(node.op_type for node in onnx.load(str(artifact.path)).graph.node) for artifact in (source, smoothed)
    )
    # Three Mul nodes in each layer: before query, key and value together, and before each feed-forward product. The
    # scale of attention's output product goes into the weights.
    assert after["Mul"] - before["Mul"] == 2 * 3
    assert agree(source, smoothed, odd, 1e-3)  # values are up to a hundred
    settings = replace(INT8, placement=Placement.gemm)
    expected = outputs(source, odd)["last_hidden_state"]
    errors = []
    for fp32 in (source, smoothed):
        int8 = outputs(
            quantize_onnx(fp32, "int8", settings, CalibrationInputs(batches, {"family": family}), shared_cache), odd
        )
        errors.append(np.linalg.norm(int8["last_hidden_state"] - expected) / np.linalg.norm(expected))
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_folded_plain_weights_compute_the_same(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny(family)
    batches = lambda: calibration_batches(folder, TEXTS, CalibrationSize(8, 24), 0)  # noqa: E731
    source, plain_weights = export_onnx(folder, sha256, shared_cache), encoder_weights(folder, sha256, shared_cache)
    smoothed = smooth_onnx(source, 0.75, ("attention_output",), CalibrationInputs(batches), shared_cache)
    folded = fold_arrays(plain_weights, smoothed, shared_cache)
    assert folded.notes == plain_weights.notes
    before, after = (dict(np.load(artifact.path)) for artifact in (plain_weights, folded))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"{n}/{name}" for n in (0, 1) for name in ("qkv_weight", "qkv_bias", "output_weight")}
    for arrays in (before, after):
        # The product of value and output weights does not depend on attention probabilities: their rows add up to 1.
        arrays["through"] = np.einsum("end,ndh->eh", arrays["0/output_weight"], arrays["0/qkv_weight"][2])
    np.testing.assert_allclose(after["through"], before["through"], rtol=1e-4, atol=1e-7)
    assert np.array_equal(before["0/qkv_weight"][:2], after["0/qkv_weight"][:2])
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(str(smoothed.path)).graph.initializer}
    values = after["0/qkv_weight"][2].reshape(-1, after["0/qkv_weight"].shape[-1]).T
    assert any(x.shape == values.shape and np.allclose(x, values, atol=1e-6) for x in constants.values())


@pytest.mark.parametrize("largest", [0.0, 0.17, 1.0, 24.76, 194.0])
def test_a_centred_range_contains_gelu_and_keeps_zero_exact(largest: float) -> None:
    offset, shifted = centred_range(largest)
    step = shifted / 127
    assert offset / step == pytest.approx(round(offset / step))
    assert largest - offset <= shifted * (1 + 1e-9)
    assert GELU_MINIMUM - offset >= -shifted * (1 + 1e-9)
    assert step == pytest.approx((largest - GELU_MINIMUM) / 253)


@pytest.mark.parametrize("leave_out", [[], ["*layer.1/output/dense/MatMul"]])
def test_a_shift_decreases_the_error_of_int8(
    leave_out: list[str], tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "sharp")
    weights = load_file(folder / "model.safetensors")
    # GELU has large positive outputs, as in trained models, and the next product depends on them.
    weights = {name: x * 20 if "intermediate.dense" in name or ".output.dense" in name else x
               for name, x in weights.items()}  # fmt: skip
    save_file(weights, tmp_path / "sharp" / "model.safetensors", {"format": "pt"})
    settings = replace(INT8, placement=Placement.ffn, leave_out=leave_out)
    expected = outputs(export_onnx(tmp_path / "sharp", "sharp", shared_cache), tmp_path / "sharp")["last_hidden_state"]
    errors = []
    for shift in (False, True):
        form, recipe = SourceForm(quantized="int8"), replace(settings, shift=shift)
        source = prepare_source(tmp_path / "sharp", "sharp", form, recipe, TEXTS, 0, shared_cache)
        assert source.onnx is not None
        nodes = Counter(node.op_type for node in onnx.load(str(source.onnx.path)).graph.node)
        assert nodes["Sub"] - 1 == (2 - len(leave_out)) * shift  # one Sub belongs to the mask
        errors.append(np.linalg.norm(outputs(source.onnx, tmp_path / "sharp")["last_hidden_state"] - expected))
    assert errors[1] < errors[0]


def test_the_bias_correction_uses_rounded_weights() -> None:
    weight = np.array([[1.0, -0.5], [0.3, 0.25]], np.float32)
    rounded = np.array([1.0 + round(0.3 * 127) / 127, -0.5 + 0.5 * round(0.25 / 0.5 * 127) / 127])
    np.testing.assert_allclose(bias_correction(2.0, weight), 2 * rounded, rtol=1e-6)
    per_tensor = (np.round(weight * 127) / 127).sum(0)
    np.testing.assert_allclose(bias_correction(2.0, weight, per_channel=False), 2 * per_tensor, rtol=1e-6)


def test_calibration_with_random_tokens_depends_on_the_seed(tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = tiny("bert")
    first, second = (calibration_batches(folder, TEXTS, CalibrationSize(8, 24, "random"), s) for s in (0, 1))
    assert not np.array_equal(first[0]["input_ids"], second[0]["input_ids"])
    with pytest.raises(Unavailable, match="needs a tokenizer"):
        calibration_batches(folder, TEXTS, CalibrationSize(8, 24, "text"), 0)
