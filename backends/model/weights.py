"""Encoder of a checkpoint as plain FP32 arrays, with the same names for all families.

Backends that build their own network (packed PyTorch, TensorRT plugins) need tensors instead of a graph. Names and
shapes, with hidden size E, N heads of size d, intermediate size I and embedding size e (equal to E except in ELECTRA):

    word [vocabulary, e]   position [positions, e]   type [types, e]   embeddings_gamma, embeddings_beta [e]
    projection_weight [E, e], projection_bias [E]                       where the embeddings are projected
    <layer>/qkv_weight [3, N, d, E]   <layer>/qkv_bias [3, N, d]        query, key, value
    <layer>/output_weight [E, N, d]   <layer>/output_bias [E]
    <layer>/attention_gamma, attention_beta [E]
    <layer>/up_weight [I, E], up_bias [I]   <layer>/down_weight [E, I], down_bias [E]
    <layer>/output_gamma, output_beta [E]
    head/<number>_weight, head/<number>_bias                            layers after the encoder, see heads.py

Row 0 of `position` belongs to the first token, for every family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Unsupported, versions_of
from backends.cache import ArtifactCache
from backends.json_codec import from_json
from backends.model.checkpoint_files import read_config
from backends.model.families import Config, layer_names_of, position_offset, setting_of, size_of
from backends.model.heads import head_of
from backends.model.layer_names import LayerNames
from backends.model.supported import PLAIN_WEIGHTS, check_named_layers
from backends.model_output import LAST_HIDDEN, Output

DEFAULT_EPSILON = 1e-12
"""Epsilon of layer normalization of a configuration without layer_norm_eps. It is the value of all such encoders."""


def encoder_weights(folder: Path, identity: str, cache: ArtifactCache, output: Output = LAST_HIDDEN) -> Artifact:
    """Write the checkpoint in `folder` as an .npz with the arrays above. The result is cached.

    The notes of the artifact have layers, heads, head_size, hidden and epsilon, and for another output than hidden
    states the notes of its head.

    Raises:
        Unsupported: the checkpoint lacks the head, the family has no named layers, the activation is not GELU with the
            error function, or load_encoder refuses the checkpoint.
    """

    check_named_layers(read_config(folder), PLAIN_WEIGHTS)

    def build(path: Path) -> Mapping[str, object]:
        from transformers import PreTrainedModel

        from backends.model.checkpoint import load_encoder

        encoder = load_encoder(folder)
        assert isinstance(encoder, PreTrainedModel)  # as of every family with plain weights
        state = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
        arrays, sizes = named_weights(state, encoder.config.to_dict())
        notes: dict[str, object] = dict(sizes)
        if head := head_of(folder, output):
            arrays, notes = arrays | head.arrays(), notes | {"head": head.notes()}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return notes

    key = {"checkpoint": identity, "form": 3, **output.for_cell()}
    return cache.get("weights", key, "weights.npz", build, versions_of(("torch", "transformers", "numpy")))


def named_weights(state: Mapping[str, Array], config: Config) -> tuple[dict[str, Array], dict[str, float]]:
    """Return arrays and notes from the state dict of an encoder without a head, and from its config.json."""
    names = layer_names_of(config)
    if (activation := setting_of(config, "hidden_act")) != "gelu":
        raise Unsupported(f"activation {activation!r} is not supported; only GELU with the error function (gelu) is")
    layers, heads = (size_of(config, name) for name in ("num_hidden_layers", "num_attention_heads"))
    arrays = _embeddings(state, config, names)
    for layer in range(layers):

        def part(role: str, kind: str, layer: int = layer) -> Array:
            return state[f"{names.module(role, layer)}.{kind}"]

        hidden = part("query", "weight").shape[1]
        arrays |= {
            f"{layer}/qkv_weight": np.stack(
                [part(role, "weight").reshape(heads, -1, hidden) for role in ("query", "key", "value")]
            ),
            f"{layer}/qkv_bias": np.stack(
                [part(role, "bias").reshape(heads, -1) for role in ("query", "key", "value")]
            ),
            f"{layer}/output_weight": part("attention_output", "weight").reshape(hidden, heads, -1),
            f"{layer}/output_bias": part("attention_output", "bias"),
        }
        for name, role in (("up", "ffn_up"), ("down", "ffn_down")):
            arrays |= {f"{layer}/{name}_{kind}": part(role, kind) for kind in ("weight", "bias")}
        for name, role in (("attention", "attention_norm"), ("output", "ffn_norm")):
            arrays |= {f"{layer}/{name}_gamma": part(role, "weight"), f"{layer}/{name}_beta": part(role, "bias")}
    head_size = arrays["0/qkv_weight"].shape[2]
    epsilon = from_json(float, config.get("layer_norm_eps", DEFAULT_EPSILON), "layer_norm_eps")
    notes = {"layers": layers, "heads": heads, "head_size": head_size, "hidden": heads * head_size}
    return arrays, {**notes, "epsilon": epsilon}


def _embeddings(state: Mapping[str, Array], config: Config, names: LayerNames) -> dict[str, Array]:
    word = state[f"{names.word}.weight"]
    types = state.get(f"{names.token_type}.weight", np.zeros((1, word.shape[1]), word.dtype))
    if f"{names.task_type}.weight" in state:
        # The row of task 0 is added to every token, because this encoder has no task input.
        types = types + state[f"{names.task_type}.weight"][0]
    arrays = {
        "word": word,
        "position": state[f"{names.position}.weight"][position_offset(config) :],
        "type": types,
        "embeddings_gamma": state[f"{names.embeddings_norm}.weight"],
        "embeddings_beta": state[f"{names.embeddings_norm}.bias"],
    }
    if f"{names.projection}.weight" in state:
        arrays |= {f"projection_{kind}": state[f"{names.projection}.{kind}"] for kind in ("weight", "bias")}
    return arrays


def divide_queries(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the same encoder for attention that does not scale its scores: queries are divided by sqrt(d)."""
    divided = dict(arrays)
    for name in [name for name in arrays if "/qkv_" in name]:
        scale = np.array([1 / math.sqrt(arrays[name].shape[2]), 1, 1], np.float32)
        divided[name] = arrays[name] * scale.reshape(3, *(1,) * (arrays[name].ndim - 1))
    return divided


def equalize_ranges(
    arrays: Mapping[str, Array], ranges: Mapping[str, float], query_scale: float
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return the same encoder with equal ranges of query, key and value in each layer.

    This is for attention that quantizes the three with one scale. Queries are multiplied by a factor and keys are
    divided by it. Values are multiplied by another factor, and the weights of the next projection are divided by it. In
    exact arithmetic, only query, key, value and context change.

    Args:
        ranges: largest absolute values of the encoder before `pad_heads`, by point (backends/model/layer_names.py).
        query_scale: the factor by which `pad_heads` multiplied the queries.

    Returns:
        The arrays, and the ranges with the shared range as `<layer>/qkv` and the new range of `<layer>/context`.
    """
    scaled, new_ranges = dict(arrays), dict(ranges)
    for name in arrays:
        layer, _, kind = name.partition("/")
        if kind != "qkv_weight":
            continue
        query, key, value = (max(ranges[f"{layer}/{part}"], 1e-6) for part in ("query", "key", "value"))
        shared = math.sqrt(query * query_scale * key)
        factors = np.array([shared / (query * query_scale), shared / key, shared / value], np.float32)
        scaled[name] = arrays[name] * factors[:, None, None, None]
        scaled[f"{layer}/qkv_bias"] = arrays[f"{layer}/qkv_bias"] * factors[:, None, None]
        scaled[f"{layer}/output_weight"] = arrays[f"{layer}/output_weight"] / factors[2]
        new_ranges |= {f"{layer}/qkv": shared, f"{layer}/context": ranges[f"{layer}/context"] * float(factors[2])}
    return scaled, new_ranges


def pad_heads(arrays: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Return the same encoder with every head padded to `size` with zeros, for kernels that support only this size.

    The zeros do not change the products of query and key, and the weights of the next projection ignore the padded
    values. The kernels divide the scores by sqrt(size) instead of sqrt(d), so queries are multiplied by sqrt(size / d).

    Raises:
        Unsupported: a head is larger than `size`.
    """
    head = arrays["0/qkv_weight"].shape[2]
    if head > size:
        raise Unsupported(f"heads of size {head} are larger than {size}, the only size of the attention kernels")
    missing, scale = size - head, np.array([math.sqrt(size / head), 1, 1], np.float32)
    padded = dict(arrays)
    for name, array in arrays.items():
        if name.endswith("/qkv_weight"):
            padded[name] = np.pad(array * scale[:, None, None, None], ((0, 0), (0, 0), (0, missing), (0, 0)))
        elif name.endswith("/qkv_bias"):
            padded[name] = np.pad(array * scale[:, None, None], ((0, 0), (0, 0), (0, missing)))
        elif name.endswith("/output_weight"):
            padded[name] = np.pad(array, ((0, 0), (0, 0), (0, missing)))
    return padded
