"""Network of plugins from a checkpoint's weights, with its choices and precision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from backends.base import BuildSpec, Source
from backends.json_codec import from_json
from backends.model.heads import Head
from backends.model.weights import divide_queries, equalize_ranges, pad_heads
from backends.profiles import plan_profiles
from backends.tensorrt_.build.build_target import BuildTarget
from backends.tensorrt_.build.precision import obey_layers, set_flags
from backends.tensorrt_.plugins.plugin_choices import check_exclusions, check_sizes, choices_of, scale_max
from backends.tensorrt_.plugins.plugin_network import PluginNetwork
from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.layout import Layout, plugin_layout
from backends.tensorrt_.runtime.tensorrt_options import PluginOptions

HEAD = 64
"""Head size for which every GPU since compute capability 8.0 has fused attention kernels."""


def define_from_weights(target: BuildTarget, spec: BuildSpec, source: Source) -> tuple[Layout, Mapping[str, object]]:
    """Fill the network from the source's weights; see DefineNetwork in backends/tensorrt_/build/build_target.py.

    Raises:
        Unsupported: the plugins have no kernels for the sizes or the exclusions of this model.
    """
    assert source.arrays is not None
    with np.load(source.arrays.path, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    head_notes = from_json(Mapping[str, object], source.arrays.notes.get("head", {}), "head")
    head = Head.of_arrays(arrays, head_notes) if head_notes else None
    heads, head_size = (from_json(int, source.arrays.notes[name], name) for name in ("heads", "head_size"))
    native = target.api.can.packed_attention and spec.options_as(PluginOptions).layout.name == "packed"
    arrays = divide_queries(arrays) if native else pad_heads(arrays, HEAD)
    hidden_heads = heads * (head_size if native else HEAD)
    layers = from_json(int, source.arrays.notes["layers"], "layers")
    notes = {"layers": layers, "heads": heads, "hidden": hidden_heads}
    hidden, excluded = len(arrays["0/output_gamma"]), excluded_from_int8(source)
    choices = choices_of(spec, hidden)
    check_sizes(choices, len(arrays["position"]), hidden)
    check_exclusions(choices, excluded)
    ranges = json.loads(source.ranges.path.read_text(encoding="utf-8")) if source.ranges else {}
    set_flags(target, spec)
    if choices.int8_attention:
        arrays, ranges = equalize_ranges(arrays, ranges, math.sqrt(HEAD / head_size))
    if excluded or choices.shift or choices.obey:
        obey_layers(target)
    PluginNetwork(
        target.api,
        target.network,
        choices,
        arrays,
        notes,
        ranges,
        excluded=excluded,
        marked=source.marked,
        epsilon=from_json(float, source.arrays.notes["epsilon"], "epsilon"),
        head=head,
        most_tokens=most_tokens(spec),
        rounded=spec.options_as(PluginOptions).pad_to_multiple_of > 1,
    ).define()
    padded = not native and head_size != HEAD
    choice_notes: dict[str, object] = {"padded_heads": padded, "native": native, **choices.notes()}
    if choices.packed and choices.int8_attention:
        qkv_ranges = [ranges[f"{layer}/qkv"] for layer in range(notes["layers"])]
        choice_notes["scale_max_layers"] = sum(scale_max(choices.scale_max, qkv_range) for qkv_range in qkv_ranges)
    return layout_of(spec, target.api.can), choice_notes


def layout_of(spec: BuildSpec, can: Capabilities) -> Layout:
    """Return the layout of the engine's inputs."""
    options = spec.options_as(PluginOptions)
    longest = max(profile.max.sequence for profile in plan_profiles(spec.shapes, options))
    return plugin_layout(options, longest, spec.tokens, can.packed_attention)


def most_tokens(spec: BuildSpec) -> int:
    """Return the largest number of tokens in a batch of any profile."""
    largest = [profile.max for profile in plan_profiles(spec.shapes, spec.options_as(PluginOptions))]
    return max(shape.batch * shape.sequence for shape in largest)


def excluded_from_int8(source: Source) -> list[str]:
    """Return the computations that stay in floating point, "<layer>/<entry of backends/onnx_/ranges.py's COMPUTED>"."""
    return from_json(list[str], source.ranges.notes["left"], "left") if source.ranges else []
