"""ONNX in the forms that backends ask for: Q/DQ by placement, casts, rewrites; each against the FP32 graph."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import rounding_session
from polygraphy.comparator import IterationResult, SimpleCompareFunc
from safetensors.torch import load_file, save_file

from backends.base import Artifact, SourceForm, Unavailable
from backends.cache import ArtifactCache
from backends.inputs import calibration_batches
from backends.onnx_source import export_onnx, prepare_source
from backends.quantize import WEIGHT_PRODUCTS, quantize_onnx
from backends.shift import LEAST, centred, given_back
from backends.smooth import fold_arrays, smooth_onnx
from backends.surgery import REWRITES, operate
from backends.typed import cast_onnx
from backends.weights import encoder_weights
from suites.config import QuantizationConfig, plain

TEXTS = ["a line", "another line", "a third"]
INT8 = {**plain(vars(QuantizationConfig(samples=8, sequence=24))), "activation": "int8", "reduce_range": False}

Tiny = Callable[[str], tuple[Path, str]]


def exported(tiny: Tiny, cache: ArtifactCache, family: str = "bert") -> Artifact:
    return export_onnx(*tiny(family), cache)


def outputs(artifact: Artifact, folder: Path) -> IterationResult:
    """What onnxruntime's CPU provider makes of one padded batch, in FP32."""
    feeds = calibration_batches(folder, TEXTS, 4, 24, seed=1)[0]
    (hidden,) = rounding_session(artifact.path).run(None, feeds)
    return IterationResult({"last_hidden_state": hidden.astype(np.float32)}, runner_name=artifact.path.parent.name)


def agree(one: Artifact, other: Artifact, folder: Path, atol: float) -> bool:
    compared = SimpleCompareFunc(atol=atol, rtol=0)(outputs(one, folder), outputs(other, folder))
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
def test_a_placement_quantizes_what_it_names_and_stays_near(
    placement: str, family: str, pairs: dict[str, int], tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, _ = tiny(family)
    source = exported(tiny, shared_cache, family)
    options = {**INT8, "placement": placement}
    batches = lambda: calibration_batches(folder, TEXTS, 8, 24, seed=0)  # noqa: E731
    artifact = quantize_onnx(source, "int8", options, batches, {}, {"family": family}, shared_cache)
    graph = onnx.load(str(artifact.path)).graph
    made = {output: node for node in graph.node for output in node.output}
    fed = Counter(
        node.op_type
        for node in graph.node
        if len(node.input) == 2
        and all(made.get(name) and made[name].op_type == "DequantizeLinear" for name in node.input)
    )
    assert fed == pairs
    assert artifact.notes["quantized"] == sum(pairs.values())
    zeros = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("zero_point")}
    assert zeros
    assert all(not values.any() and values.dtype == np.int8 for values in zeros.values())
    assert agree(artifact, source, folder, atol=0.4)


def test_weights_stay_fp32_behind_their_pair(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    """TensorRT 8.6 reads no INT8 constants."""
    form = SourceForm(quantized="int8")
    folder, sha256 = tiny("bert")
    source = prepare_source(folder, sha256, form, {**INT8, "placement": "gemm"}, TEXTS, 0, shared_cache)
    assert source.onnx is not None
    graph = onnx.load(str(source.onnx.path)).graph
    large = [i for i in graph.initializer if len(i.dims) == 2]
    assert {i.data_type for i in large} == {onnx.TensorProto.FLOAT}


def test_fp8_moves_to_the_opset_that_has_it(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, _ = tiny("bert")
    batches = lambda: calibration_batches(folder, TEXTS, 8, 24, seed=0)  # noqa: E731
    options = {**INT8, "placement": "gemm"}
    artifact = quantize_onnx(exported(tiny, shared_cache), "fp8", options, batches, {}, {}, shared_cache)
    assert artifact.notes["opset"] == 19
    kinds = {i.data_type for i in onnx.load(str(artifact.path)).graph.initializer if i.name.endswith("zero_point")}
    assert kinds == {onnx.TensorProto.FLOAT8E4M3FN}


@pytest.mark.parametrize(("types", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
@pytest.mark.parametrize("quantized", ["", "int8"])
def test_a_cast_graph_carries_its_types(
    types: str, kind: int, quantized: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny("bert")
    form = SourceForm(types=types, keep_fp32=("*/LayerNormalization",), quantized=quantized)
    quantization = {**INT8, "placement": "all"}
    source = prepare_source(folder, sha256, form, quantization, TEXTS, 0, shared_cache)
    assert source.onnx is not None
    assert source.onnx.notes["kept_fp32"] == 5
    model = onnx.load(str(source.onnx.path))
    onnx.checker.check_model(model, full_check=True)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert [o.type.tensor_type.elem_type for o in typed.graph.output] == [kind]
    weights = {i.data_type for i in model.graph.initializer if len(i.dims) == 2 and "MatMul" not in i.name}
    assert weights == {kind}
    made = {output: node for node in model.graph.node for output in node.output}
    direct = Counter(
        node.op_type
        for node in model.graph.node
        if len(node.input) == 2 and {made[n].op_type for n in node.input if n in made} == {"DequantizeLinear"}
    )
    assert direct == ({"MatMul": 16, "Add": 4} if quantized else {})
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert all(made[norm.input[0]].op_type in ("Cast", "DequantizeLinear") for norm in norms)
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
    wanted, found = original[name], rounded[name]
    assert np.abs(found - wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=2**-8, atol=1e-30)


def test_a_pattern_that_matches_nothing_is_an_error(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    with pytest.raises(ValueError, match=r"\*norm9\* matches none of \d+ names"):
        cast_onnx(exported(tiny, shared_cache), "fp16", ("*norm9*",), shared_cache)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
@pytest.mark.parametrize(
    ("rewrite", "changes", "off"),
    # The cubic is another function, by up to 4.7e-4 in each of two layers.
    [("constant_reshapes", 8, 1e-5), ("merged_qkv", 2, 1e-5), ("sigmoid_gelu", 2, 1e-5), ("cubic_gelu", 2, 5e-3)],
)
def test_a_rewrite_computes_the_same(
    rewrite: str, changes: int, off: float, family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    source = exported(tiny, shared_cache, family)
    rewritten = operate(source, [rewrite], shared_cache)
    assert rewritten.notes["rewrites"] == {rewrite: changes}
    assert rewritten.notes["opset"] == 17
    onnx.checker.check_model(onnx.load(str(rewritten.path)), full_check=True)
    assert agree(rewritten, source, tiny(family)[0], atol=off)


def test_rewrites_and_the_choices_of_the_command_line_are_the_same() -> None:
    from suites.choices import Rewrite

    assert [rewrite.name for rewrite in Rewrite] == list(REWRITES)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_smoothing_changes_nothing_in_fp32_and_helps_int8(
    family: str, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    """One channel of what the products read is thirty times larger, as in trained models."""
    folder, _ = tiny(family)
    shutil.copytree(folder, tmp_path / "odd")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("LayerNorm.weight") or name.endswith("layer_norm.weight"):
            weights[name][3] *= 30
    save_file(weights, tmp_path / "odd" / "model.safetensors", {"format": "pt"})
    odd = tmp_path / "odd"
    source = export_onnx(odd, f"odd {family}", shared_cache)
    batches = lambda: calibration_batches(odd, TEXTS, 8, 24, seed=0)  # noqa: E731
    smoothed = smooth_onnx(source, 0.5, tuple(WEIGHT_PRODUCTS), batches, {}, shared_cache)
    assert smoothed.notes["smoothed"] == 12
    made = Counter(node.op_type for node in onnx.load(str(smoothed.path)).graph.node)
    # A Mul a layer before query, key and value and before each feed-forward product; attention's own folds away.
    assert made["Mul"] - Counter(node.op_type for node in onnx.load(str(source.path)).graph.node)["Mul"] == 2 * 3
    assert agree(source, smoothed, odd, 1e-3)  # of values up to a hundred
    settings = {**INT8, "placement": "gemm"}
    wanted = outputs(source, odd)["last_hidden_state"]
    errors = []
    for start in (source, smoothed):
        found = outputs(quantize_onnx(start, "int8", settings, batches, {}, {"family": family}, shared_cache), odd)
        errors.append(np.linalg.norm(found["last_hidden_state"] - wanted) / np.linalg.norm(wanted))
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_plain_weights_take_what_folds_and_compute_the_same(
    family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny(family)
    batches = lambda: calibration_batches(folder, TEXTS, 8, 24, seed=0)  # noqa: E731
    source, plain_weights = export_onnx(folder, sha256, shared_cache), encoder_weights(folder, sha256, shared_cache)
    smoothed = smooth_onnx(source, 0.75, ("attention_output",), batches, {}, shared_cache)
    folded = fold_arrays(plain_weights, smoothed, shared_cache)
    assert folded.notes == plain_weights.notes
    before, after = (dict(np.load(artifact.path)) for artifact in (plain_weights, folded))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {f"{n}/{name}" for n in (0, 1) for name in ("qkv_weight", "qkv_bias", "output_weight")}
    for arrays in (before, after):
        # Through values and the output product, whatever attention's shares: rows of shares add up to 1.
        arrays["through"] = np.einsum("end,ndh->eh", arrays["0/output_weight"], arrays["0/qkv_weight"][2])
    np.testing.assert_allclose(after["through"], before["through"], rtol=1e-4, atol=1e-7)
    assert np.array_equal(before["0/qkv_weight"][:2], after["0/qkv_weight"][:2])
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(str(smoothed.path)).graph.initializer}
    values = after["0/qkv_weight"][2].reshape(-1, after["0/qkv_weight"].shape[-1]).T
    assert any(x.shape == values.shape and np.allclose(x, values, atol=1e-6) for x in constants.values())


@pytest.mark.parametrize("largest", [0.0, 0.17, 1.0, 24.76, 194.0])
def test_a_centred_range_holds_gelu_and_keeps_zero_exact(largest: float) -> None:
    offset, reach = centred(largest)
    step = reach / 127
    assert offset / step == pytest.approx(round(offset / step))
    assert largest - offset <= reach * (1 + 1e-9)
    assert LEAST - offset >= -reach * (1 + 1e-9)
    assert step == pytest.approx((largest - LEAST) / 253)


@pytest.mark.parametrize("leave_out", [[], ["*layer.1/output/dense/MatMul"]])
def test_a_shift_gives_gelu_twice_the_levels(
    leave_out: list[str], tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "sharp")
    weights = load_file(folder / "model.safetensors")
    # GELU with large outputs on one side, as in trained models, and a product that they matter to.
    weights = {name: x * 20 if "intermediate.dense" in name or ".output.dense" in name else x
               for name, x in weights.items()}  # fmt: skip
    save_file(weights, tmp_path / "sharp" / "model.safetensors", {"format": "pt"})
    settings = {**INT8, "placement": "ffn", "leave_out": leave_out, "scheme": "explicit"}
    wanted = outputs(export_onnx(tmp_path / "sharp", "sharp", shared_cache), tmp_path / "sharp")["last_hidden_state"]
    errors = []
    for shift in (False, True):
        form, asked = SourceForm(quantized="int8"), {**settings, "shift": shift}
        source = prepare_source(tmp_path / "sharp", "sharp", form, asked, TEXTS, 0, shared_cache)
        assert source.onnx is not None
        made = Counter(node.op_type for node in onnx.load(str(source.onnx.path)).graph.node)
        assert made["Sub"] - 1 == (2 - len(leave_out)) * shift  # one is the mask's
        errors.append(np.linalg.norm(outputs(source.onnx, tmp_path / "sharp")["last_hidden_state"] - wanted))
    assert errors[1] < errors[0]


def test_a_bias_gets_back_what_rounded_weights_lost() -> None:
    weight = np.array([[1.0, -0.5], [0.3, 0.25]], np.float32)
    rounded = np.array([1.0 + round(0.3 * 127) / 127, -0.5 + 0.5 * round(0.25 / 0.5 * 127) / 127])
    np.testing.assert_allclose(given_back(2.0, weight), 2 * rounded, rtol=1e-6)
    as_a_whole = (np.round(weight * 127) / 127).sum(0)
    np.testing.assert_allclose(given_back(2.0, weight, per_channel=False), 2 * as_a_whole, rtol=1e-6)


def test_calibration_by_random_tokens_is_another(tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = tiny("bert")
    text, random = (calibration_batches(folder, TEXTS, 8, 24, seed=s, tokens="random") for s in (0, 1))
    assert not np.array_equal(text[0]["input_ids"], random[0]["input_ids"])
    with pytest.raises(Unavailable, match="needs a tokenizer"):
        calibration_batches(folder, TEXTS, 8, 24, seed=0, tokens="text")
