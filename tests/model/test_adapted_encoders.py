"""Encoders whose attention uses positions: the outputs of the backends equal plain transformers, also in long
sequences, and windows limit what a token reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import OTHER_MODELS, ROOT, TINY_MODELS
from word_models import word_model

from backends.base import Array, BuildSpec, Device, Feeds, Shape, Source, Unsupported
from backends.cache import ArtifactCache
from backends.json_codec import from_json
from backends.model.adapted_encoders import OWN_ATTENTION
from backends.model.checkpoint import find_checkpoint, input_names, load_encoder, run_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import FAMILIES, family_of, positions_of, token_types_of
from backends.model.identity import identity_of
from backends.model.reference import ModelReference
from backends.model.supported import check_computable, check_named_layers
from backends.onnx_.export_graph import OPSET
from backends.onnx_.onnx_source import export_onnx
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend
from suites.schema.config import ModelConfig

Models = Callable[[str], tuple[Path, str]]

LONG = 600
"""A sequence that is longer than the 512 tokens of BERT, for families that can read it."""

IMPORTED = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Erf", "Expand",
    "Gather", "GatherElements", "Identity", "LayerNormalization", "LessOrEqual", "MatMul", "Mul", "Neg", "Not",
    "Pow", "Range", "ReduceMean", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze",
    "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
"""Operators that the parser of TensorRT 8.6 imports (docs/operators.md of onnx-tensorrt, branch release/8.6-GA)."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return the folder and the identity of a two-layer checkpoint of a family. Its attention is far from uniform."""
    made: dict[str, Path] = {}

    def make(family: str) -> tuple[Path, str]:
        if family not in made:
            made[family] = word_model(tmp_path_factory.mktemp(family) / "model", family)
        return made[family], f"far from uniform {family}"

    return make


def feeds_of(folder: Path, lengths: list[int]) -> Feeds:
    """Return random tokens of sequences with these lengths, padded to the longest one."""
    generator, config = np.random.default_rng(0), read_config(folder)
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.where(mask > 0, generator.integers(4, 60, shape), config.get("pad_token_id") or 0).astype(np.int32)
    types = (generator.integers(0, max(1, token_types_of(config)), shape) * mask).astype(np.int32)
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: arrays[name] for name in input_names(folder)}


def transformers_output(folder: Path, feeds: Feeds) -> Array:
    """Return the output of AutoModel with scaled_dot_product_attention, or eager where it has no other."""
    from transformers import AutoModel

    implementation = "eager" if family_of(read_config(folder)).attention in OWN_ATTENTION else "sdpa"
    model = AutoModel.from_pretrained(folder, attn_implementation=implementation, dtype=torch.float32).eval()
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array).long() for name, array in feeds.items()}
        output: Array = model(**inputs).last_hidden_state.numpy()
    return output


def outputs(backend: str, folder: Path, identity: str, cache: ArtifactCache, batches: list[Feeds],
            **options: Any) -> list[Array]:  # fmt: skip
    """Return the outputs of one session of `backend` in FP32 on the CPU for all batches."""
    shapes = tuple(Shape(*feeds["input_ids"].shape) for feeds in batches)
    typed = from_json(describe(backend).options, options)
    spec = BuildSpec("fp32", Device(), shapes, False, cache.root, typed, QuantizationOptions(), threads=1)
    source, loaded = Source(folder, identity), load_backend(backend)
    if backend == "ort":
        source = Source(folder, identity, export_onnx(folder, identity, cache))
    results = []
    with loaded.open(spec, loaded.build(spec, source)) as session:
        for feeds in batches:
            session.load(feeds)
            session.step()
            session.wait()
            results.append(session.fetch().copy())
    return results


def difference(output: Array, reference: Array, feeds: Feeds) -> float:
    """Return the largest difference at tokens; padding has no meaning, but it must be finite."""
    assert np.isfinite(output).all()
    return float(np.abs(output - reference)[feeds["attention_mask"] > 0].max())


def batches_of(folder: Path) -> list[Feeds]:
    """Return a padded and an unpadded batch, and both with a long sequence if the model can read it."""
    longest = min(LONG, positions_of(read_config(folder)))
    return [feeds_of(folder, lengths) for lengths in ([3, 40, 17], [24, 24], [longest, 30], [longest])]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("backend", "options"), [("torch_eager", {}), ("ort", {}), ("ort", {"fusion": "on"})], ids=["torch", "ort", "fused"]
)
def test_outputs_equal_transformers(
    family: str, backend: str, options: dict[str, Any], models: Models, shared_cache: ArtifactCache
) -> None:
    folder, identity = models(family)
    batches = batches_of(folder)
    results = outputs(backend, folder, identity, shared_cache, batches, **options)
    for feeds, output in zip(batches, results, strict=True):
        assert difference(output, transformers_output(folder, feeds), feeds) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
@pytest.mark.parametrize("family", ["gte", "modernbert", "deberta-v2"])
def test_compiled_outputs_equal_transformers(family: str, models: Models, shared_cache: ArtifactCache) -> None:
    folder, identity = models(family)
    batches = [feeds_of(folder, [3, 40, 17]), feeds_of(folder, [24, 24])]
    results = outputs("torch_compile", folder, identity, shared_cache, batches)
    for feeds, output in zip(batches, results, strict=True):
        assert difference(output, transformers_output(folder, feeds), feeds) < 1e-5


def test_the_parts_of_a_large_deberta_are_exact(tmp_path: Path, shared_cache: ArtifactCache) -> None:
    folder = word_model(
        tmp_path / "model", "deberta-v2", conv_kernel_size=3, conv_act="gelu", type_vocab_size=2,
        position_biased_input=True, share_att_key=False, max_position_embeddings=64,
    )  # fmt: skip
    batches = [feeds_of(folder, [3, 40, 17]), feeds_of(folder, [64])]
    for backend in ("torch_eager", "ort"):
        results = outputs(backend, folder, "parts of deberta", shared_cache, batches)
        for feeds, output in zip(batches, results, strict=True):
            assert difference(output, transformers_output(folder, feeds), feeds) < 1e-5
    without = word_model(tmp_path / "absolute", "deberta-v2", relative_attention=False, position_biased_input=True)
    feeds = feeds_of(without, [3, 40])
    (output,) = outputs("torch_eager", without, "", shared_cache, [feeds])
    assert difference(output, transformers_output(without, feeds), feeds) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exported_graph_suits_tensorrt(family: str, models: Models, shared_cache: ArtifactCache) -> None:
    folder, identity = models(family)
    model = onnx.load(export_onnx(folder, identity, shared_cache).path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.INT32}
    # There is no Sin, Cos or Log, which would be inexact in FP16, and no CumSum, which is a loop in TensorRT.
    assert {node.op_type for node in model.graph.node} <= IMPORTED


@pytest.mark.parametrize("backend", ["torch_eager", "ort"])
def test_a_layer_with_a_window_reads_only_the_window(backend: str, tmp_path: Path, shared_cache: ArtifactCache) -> None:
    window = ["sliding_attention"]
    folder = word_model(tmp_path / "model", "modernbert", layer_types=window, num_hidden_layers=1, local_attention=16)
    first = feeds_of(folder, [40, 20])
    changed = {name: array.copy() for name, array in first.items()}
    changed["input_ids"][0, 20] = (changed["input_ids"][0, 20] + 1 - 4) % 56 + 4
    before, after = outputs(backend, folder, "window", shared_cache, [first, changed])
    reads = np.abs(before - after)[0].max(1) > 1e-6
    assert np.flatnonzero(reads).tolist() == list(range(20 - 8, 20 + 8 + 1))
    assert difference(before, transformers_output(folder, first), first) < 1e-5


@pytest.mark.parametrize("family", ["gte", "modernbert", "mpnet", "deberta-v2"])
def test_half_precision_is_close_at_the_last_positions(family: str, models: Models) -> None:
    folder, _ = models(family)
    feeds = feeds_of(folder, [min(4000, positions_of(read_config(folder)))])
    encoder = load_encoder(folder)
    with torch.inference_mode():
        expected = run_encoder(encoder, feeds).numpy()[0]
        found = run_encoder(encoder.to(torch.bfloat16), feeds).float().numpy()[0]
    cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.995


def test_rotations_are_exact_in_fp16(models: Models) -> None:
    encoder = load_encoder(models("gte")[0])
    positions = torch.arange(8192)[None]
    exact = encoder.rotary_emb(torch.zeros(1), positions)
    for found, expected in zip(encoder.half().rotary_emb(torch.zeros(1).half(), positions), exact, strict=True):
        assert float((found.float() - expected).abs().max()) < 1e-3


LONGROPE = {
    "original_max_position_embeddings": 64,
    "short_factor": [1.0 + 0.1 * number for number in range(16)],
    "long_factor": [4.0 + number for number in range(16)],
}
"""Factors of a model with 32 features in each head."""


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope"])
@pytest.mark.parametrize("backend", ["torch_eager", "ort"])
def test_scaled_rotations_are_those_of_transformers(
    kind: str, backend: str, tmp_path: Path, shared_cache: ArtifactCache
) -> None:
    """Batches are longer and shorter than the original length."""
    parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = 64
    parameters |= LONGROPE if kind == "longrope" else {}
    folder = word_model(tmp_path / "model", "gte", max_position_embeddings=128, rope_parameters=parameters)
    check_computable(read_config(folder))
    batches = [feeds_of(folder, lengths) for lengths in ([128, 70], [64, 3], [65, 64])]
    identity = identity_of(folder)
    for feeds, output in zip(batches, outputs(backend, folder, identity, shared_cache, batches), strict=True):
        assert difference(output, transformers_output(folder, feeds), feeds) < 1e-5


def test_an_unknown_model_type_lists_the_families() -> None:
    with pytest.raises(Unsupported) as refusal:
        check_computable({"model_type": "new"})
    for family in FAMILIES:
        assert family in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("family", OTHER_MODELS)
def test_the_reason_why_a_family_has_no_plain_weights(family: str) -> None:
    reasons = {"absolute": "share weights", "bias": "bias", "rotary": "rotates", "disentangled": "embeddings of the"}
    with pytest.raises(Unsupported, match=f"because its .*{reasons[FAMILIES[family].attention]}.*; use backend="):
        check_named_layers({"model_type": family}, "quantization")


@pytest.mark.parametrize("file", sorted((ROOT / "suites/conf/model").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_files_of_models_are_right(file: Path, shared_cache: ArtifactCache) -> None:
    from omegaconf import OmegaConf

    from backends.model.architecture import configuration_of

    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(file)))
    assert isinstance(model, ModelConfig)
    assert model.names == {model.hub: file.stem}
    assert model.positions == positions_of(model.architecture)
    config: Any = configuration_of(model.architecture)
    assert config.model_type in {**TINY_MODELS, **OTHER_MODELS}
    # The architecture is accepted, and a small model of it can be computed.
    family = FAMILIES[config.model_type]
    small = {family.settings.get("num_hidden_layers", "num_hidden_layers"): 1, "vocab_size": 60}
    padding = {"pad_token_id": 1} if (config.pad_token_id or 0) >= 60 else {}
    found = find_checkpoint(ModelReference("random", architecture={**model.architecture, **small, **padding}),
                            shared_cache)  # fmt: skip
    feeds = feeds_of(found.folder, [20, 9])
    (output,) = outputs("torch_eager", found.folder, found.identity, shared_cache, [feeds])
    assert difference(output, transformers_output(found.folder, feeds), feeds) < 1e-5
