"""Backend `trt_plugin`: TensorRT through its BERT plugins.

layout=fixed runs padded sequences, layout=packed runs packed tokens without padding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import Artifact, Backend, BuildSpec, Session, Source, SourceForm, Unsupported
from backends.model.weights import divide_queries, equalize_ranges, pad_heads
from backends.tensorrt_.build.engine import cached_engine, session_of
from backends.tensorrt_.plugins.plugin_choices import (
    check_exclusions,
    check_options_used,
    check_padded,
    check_sizes,
    choices_of,
    floating_nodes,
    scale_max,
)
from backends.tensorrt_.runtime.installation import COMPANION_PACKAGES, DISTRIBUTIONS, available
from backends.tensorrt_.runtime.layout import Layout, plugin_layout
from backends.tensorrt_.runtime.profiles import plan_profiles

if TYPE_CHECKING:
    import tensorrt as trt

    from backends.tensorrt_.runtime.log import Log

NETWORK_VERSION = 5
"""Version of the network that this backend defines. Each change of the network increases it, so that cached engines of
the previous network are not used."""

HEAD = 64
"""Head size for which every GPU since compute capability 8.0 has fused attention kernels."""


class TensorRTPlugin(Backend):
    distributions = DISTRIBUTIONS
    beside = COMPANION_PACKAGES
    marks = True

    def check(self, spec: BuildSpec) -> None:
        can = available()
        options = spec.options
        if spec.precision not in ("fp32", "fp16", "int8"):
            raise Unsupported(f"the BERT plugins compute in fp32, fp16 and int8, not in {spec.precision}")
        if options["layout"] == "packed" and spec.precision == "fp32":
            raise Unsupported("packed attention has no FP32 kernels; use layout=fixed, or precision=fp16")
        if options["products"] == "plugin" and options["layout"] == "packed":
            raise Unsupported("plugin.products=plugin needs layout=fixed; with packed tokens use convolution")
        if options["products"] == "fully_connected" and not can.fully_connected:
            raise Unsupported(
                "plugin.products=fully_connected needs TensorRT 8, the last release with this layer; use matmul"
            )
        if options["interleaved"] and not _all_int8(spec):
            raise Unsupported(
                "plugin.interleaved needs precision=int8, layout=packed, convolutions, and neither "
                "plugin.attention=fp16 nor plugin.norms=fp16"
            )
        for name in ("rewrites", "keep_fp32"):
            if options[name]:
                raise Unsupported(f"{name} is for backend=trt only, which builds from an ONNX file")
        if options["types"] != "auto":
            raise Unsupported("the precision sets the types of an engine of plugins; leave trt.types at auto")
        if spec.precision == "int8":
            if not can.weak_typing:
                raise Unsupported(
                    "INT8 plugins need dynamic ranges, which TensorRT 10 was the last to have; use backend=trt"
                )
            if spec.quantization["scheme"] != "explicit":
                raise Unsupported(
                    "INT8 plugins use the ranges that the suite calibrates; use quantization.scheme=explicit"
                )
        check_options_used(spec, can.weak_typing)
        per_shape = options.get("engines", "one") == "per_shape"
        for engine_spec in [replace(spec, shapes=(shape,)) for shape in spec.shapes] if per_shape else [spec]:
            check_padded(engine_spec)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(arrays=True, ranges=spec.precision == "int8", floating=floating_nodes(spec.options))

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        assert source.arrays is not None
        ranges = source.ranges.sha256 if source.ranges else ""
        made_from = {
            "arrays": source.arrays.sha256,
            "ranges": ranges,
            "left": _excluded_from_int8(source),
            "marked": list(source.marked),
            "form": NETWORK_VERSION,
            "epsilon": source.arrays.notes["epsilon"],
            **({"shift": True} if spec.quantization.get("shift") else {}),
        }
        tuned = {planned.best for planned in plan_profiles(spec.shapes, spec.options)} & spec.tokens.keys()
        if spec.options["layout"] == "packed" and tuned:
            made_from["tokens"] = {str(shape): spec.tokens[shape] for shape in sorted(tuned)}
        return cached_engine(spec, made_from, lambda engine_spec: lambda: partial(_define, engine_spec, source))

    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        return session_of(self.opening(spec, artifact))

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Iterator[tuple[str, Session | None]]:
        from backends.tensorrt_.session.open_session import opening

        yield "import", None
        yield from opening(spec, artifact, layout_of(spec))


def layout_of(spec: BuildSpec) -> Layout:
    """Return the layout of the engine's inputs."""
    longest = max(planned.high.sequence for planned in plan_profiles(spec.shapes, spec.options))
    return plugin_layout(spec.options, longest, spec.tokens, available().packed_attention)


def _define(
    spec: BuildSpec,
    source: Source,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    log: Log,
) -> tuple[Layout, Mapping[str, Any]]:
    """Fill `network` from the source's weights; see backends.tensorrt_.build.build.Define."""
    from backends.tensorrt_.build.precision import obey_layers, set_flags
    from backends.tensorrt_.plugins.plugin_network import PluginNetwork
    from backends.tensorrt_.runtime.capabilities import installed

    assert source.arrays is not None
    with np.load(source.arrays.path, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    heads, head_size = (int(source.arrays.notes[name]) for name in ("heads", "head_size"))
    native = installed().packed_attention and spec.options["layout"] == "packed"
    arrays = divide_queries(arrays) if native else pad_heads(arrays, HEAD)
    hidden_heads = heads * (head_size if native else HEAD)
    notes = {"layers": int(source.arrays.notes["layers"]), "heads": heads, "hidden": hidden_heads}
    hidden, excluded = len(arrays["0/output_gamma"]), _excluded_from_int8(source)
    choices = choices_of(spec, hidden)
    check_sizes(choices, len(arrays["position"]), hidden)
    check_exclusions(choices, excluded)
    ranges = json.loads(source.ranges.path.read_text(encoding="utf-8")) if source.ranges else {}
    set_flags(spec, config)
    if choices.int8_attention:
        arrays, ranges = equalize_ranges(arrays, ranges, math.sqrt(HEAD / head_size))
    if excluded or choices.shift or choices.obey:
        obey_layers(config)
    epsilon = source.arrays.notes["epsilon"]
    PluginNetwork(network, choices, arrays, notes, ranges, excluded, source.marked, epsilon).define()
    choice_notes = {"padded_heads": not native and head_size != HEAD, "native": native, **choices.notes()}
    if choices.packed and choices.int8_attention:
        qkv_ranges = [ranges[f"{layer}/qkv"] for layer in range(notes["layers"])]
        choice_notes["scale_max_layers"] = sum(scale_max(choices.scale_max, qkv_range) for qkv_range in qkv_ranges)
    return layout_of(spec), choice_notes


def _excluded_from_int8(source: Source) -> list[str]:
    """Return the computations that stay in floating point, "<layer>/<entry of backends/onnx_/ranges.py's COMPUTED>"."""
    return list(source.ranges.notes["left"]) if source.ranges else []


def _all_int8(spec: BuildSpec) -> bool:
    """Return whether every tensor between the embeddings and the output can be INT8."""
    options = spec.options
    packed = options["layout"] == "packed" and options["products"] in ("auto", "convolution")
    parts = {options["attention"], options["norms"]}
    return packed and spec.precision == "int8" and "fp16" not in parts
