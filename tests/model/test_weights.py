"""The plain arrays of an encoder, with and without padded heads: a numpy encoder with them agrees with transformers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODELS

from backends.base import Array, Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint import input_names, load_encoder, run_encoder
from backends.model.weights import divide_queries, encoder_weights, equalize_ranges, named_weights, pad_heads

Tiny = Callable[[str], tuple[Path, str]]


def norm(x: Array, arrays: Mapping[str, Array], name: str, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * arrays[f"{name}_gamma"]
        + arrays[f"{name}_beta"]
    )


def encode(arrays: Mapping[str, Array], ids: Array, types: Array, mask: Array, epsilon: float) -> Array:
    """Run an encoder on arrays with the names of backends/model/weights.py. Return FP32 [batch, sequence, E]."""
    x = arrays["word"][ids] + arrays["position"][: ids.shape[1]] + arrays["type"][types]
    x = norm(x, arrays, "embeddings", epsilon)
    if "projection_weight" in arrays:
        x = x @ arrays["projection_weight"].T + arrays["projection_bias"]
    hidden_keys = np.where(mask, np.float32(0), np.float32(-1e4))[:, None, None]
    for layer in range(sum(name.endswith("/qkv_weight") for name in arrays)):
        weights = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{layer}/")}
        query, key, value = (
            np.einsum("bse,knde->kbnsd", x, weights["qkv_weight"]) + weights["qkv_bias"][:, None, :, None, :]
        )
        scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(query.shape[-1])) + hidden_keys
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        context = exponentials / exponentials.sum(-1, keepdims=True) @ value
        x = x + np.einsum("bnsd,end->bse", context, weights["output_weight"]) + weights["output_bias"]
        x = norm(x, weights, "attention", epsilon)
        up = torch.nn.functional.gelu(torch.from_numpy(x @ weights["up_weight"].T + weights["up_bias"])).numpy()
        x = norm(x + up @ weights["down_weight"].T + weights["down_bias"], weights, "output", epsilon)
    return x


@pytest.mark.parametrize("family", TINY_MODELS)
@pytest.mark.parametrize("head", [32, 64])
def test_the_arrays_give_the_outputs_of_the_encoder_also_with_padded_heads(
    family: str, head: int, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny(family)
    artifact = encoder_weights(folder, sha256, shared_cache)
    assert artifact.notes["epsilon"] in (1e-12, 1e-5)
    assert {**artifact.notes, "epsilon": 0} == {"layers": 2, "heads": 2, "head_size": 32, "hidden": 64, "epsilon": 0}
    arrays = dict(np.load(artifact.path))
    if head > 32:
        arrays = pad_heads(arrays, head)
    assert arrays["0/qkv_weight"].shape == (3, 2, head, 64)
    generator = np.random.default_rng(0)
    ids = generator.integers(3, 400, (3, 12)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[1, 7:], ids[1, 7:] = 0, 1 if family == "roberta" else 0
    encoder = load_encoder(folder)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.inference_mode():
        expected = run_encoder(encoder, {name: feeds[name] for name in input_names(folder)}).numpy()
    epsilon = getattr(encoder.config, "layer_norm_eps", 1e-12)
    outputs = encode(arrays, ids, feeds["token_type_ids"], mask, epsilon)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs[mask == 1], expected[mask == 1], atol=2e-6)


def test_queries_are_divided_for_attention_without_a_division(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    arrays = dict(np.load(encoder_weights(*tiny("bert"), shared_cache).path))
    divided = divide_queries(arrays)
    assert {name for name in arrays if divided[name] is not arrays[name]} == {
        f"{layer}/qkv_{kind}" for layer in (0, 1) for kind in ("weight", "bias")
    }
    scale = np.array([math.sqrt(32), 1, 1])
    np.testing.assert_allclose(divided["1/qkv_weight"] * scale[:, None, None, None], arrays["1/qkv_weight"], rtol=1e-6)
    np.testing.assert_allclose(divided["1/qkv_bias"] * scale[:, None, None], arrays["1/qkv_bias"], rtol=1e-6)


@pytest.mark.parametrize("family", TINY_MODELS)
@pytest.mark.parametrize("head", [32, 64])
def test_equal_ranges_of_query_key_and_value_change_no_output(
    family: str, head: int, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    arrays = dict(np.load(encoder_weights(*tiny(family), shared_cache).path))
    point_ranges = {"query": 7.0, "key": 3.0, "value": 0.4, "context": 0.3}
    ranges = {f"{layer}/{point}": largest for layer in (0, 1) for point, largest in point_ranges.items()}
    padded = pad_heads(arrays, head)
    scaled, scaled_ranges = equalize_ranges(padded, ranges, math.sqrt(head / 32))
    ids = np.random.default_rng(1).integers(3, 400, (3, 12)).astype(np.int32)
    inputs = ids, np.zeros_like(ids), np.ones_like(ids)
    np.testing.assert_allclose(encode(scaled, *inputs, 1e-12), encode(arrays, *inputs, 1e-12), atol=2e-6)
    # A tensor that filled its range fills the shared range now. The context still fills its own range.
    factors = (scaled["1/qkv_weight"] / np.where(padded["1/qkv_weight"] == 0, 1, padded["1/qkv_weight"])).max((1, 2, 3))
    largest = factors * np.array([7.0 * math.sqrt(head / 32), 3.0, 0.4])
    np.testing.assert_allclose(largest, scaled_ranges["1/qkv"], rtol=1e-5)
    assert scaled_ranges["1/context"] == pytest.approx(0.3 * factors[2])
    assert scaled_ranges["1/query"] == 7.0


def test_unsupported_encoders_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="activation 'relu'"):
        named_weights({}, {"model_type": "bert", "hidden_act": "relu"})
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "relative")
    config = json.loads((folder / "config.json").read_text()) | {"position_embedding_type": "relative_key"}
    (tmp_path / "relative" / "config.json").write_text(json.dumps(config))
    # This applies to every backend and the reference, because transformers would compute absolute positions.
    with pytest.raises(Unsupported, match="relative_key positions are not supported"):
        load_encoder(tmp_path / "relative")
    with pytest.raises(Unsupported, match="heads of size 96 are larger than 64"):
        pad_heads({"0/qkv_weight": np.zeros((3, 1, 96, 8), np.float32)}, 64)
