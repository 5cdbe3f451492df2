"""Backend `trt_plugin`: TensorRT through its BERT plugins.

layout=fixed runs padded sequences, layout=packed runs packed tokens without padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from backends.base import Artifact, BuildSpec, Device, Source, SourceForm, Unsupported
from backends.finding import MISSING, OK, Finding
from backends.json_codec import from_json
from backends.profiles import plan_profiles
from backends.tensorrt_.plugins.plugin_choices import check_options_used, check_padded, choices_of, floating_nodes
from backends.tensorrt_.plugins.weights_network import define_from_weights, excluded_from_int8, layout_of
from backends.tensorrt_.runtime.installation import INSTALL_COMMAND
from backends.tensorrt_.runtime.layout import Layout
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.target import check_target
from backends.tensorrt_.runtime.tensorrt_options import Engines, Part, PluginOptions, Products, Types
from backends.tensorrt_.tensorrt_backend import TensorRTBackend

CACHE_VERSION = 5
"""Version of the network that this backend defines. Each change of the network increases it, so that cached engines of
the previous network are not used."""

JOINED = 2
"""Version of the layers of several poolings, for the key in the cache."""


class TensorRTPlugin(TensorRTBackend):
    def check(self, spec: BuildSpec) -> None:
        check_target(self.api, spec)
        can = self.api.can
        if can.named_targets:
            raise Unsupported("TensorRT-RTX has no BERT plugins and no kernel of packed attention; use backend=trt")
        options = spec.options_as(PluginOptions)
        if spec.precision not in ("fp32", "fp16", "int8"):
            raise Unsupported(f"the BERT plugins compute in fp32, fp16 and int8, not in {spec.precision}")
        if options.layout.name == "packed" and spec.precision == "fp32":
            raise Unsupported("packed attention has no FP32 kernels; use layout=fixed, or precision=fp16")
        if options.products is Products.plugin and options.layout.name == "packed":
            raise Unsupported("plugin.products=plugin needs layout=fixed; with packed tokens use convolution")
        if options.products is Products.fully_connected and not can.fully_connected:
            raise Unsupported(
                "plugin.products=fully_connected needs TensorRT 8, the last release with this layer; use matmul"
            )
        if options.interleaved and not _all_int8(spec):
            raise Unsupported(
                "plugin.interleaved needs precision=int8, layout=packed, convolutions, and neither "
                "plugin.attention=fp16 nor plugin.norms=fp16"
            )
        for name in ("rewrites", "keep_fp32"):
            if getattr(options, name):
                raise Unsupported(f"{name} is for backend=trt only, which builds from an ONNX file")
        if options.types is not Types.auto:
            raise Unsupported("the precision sets the types of an engine of plugins; leave trt.types at auto")
        if spec.precision == "int8":
            if not can.weak_typing:
                raise Unsupported(
                    "INT8 plugins need dynamic ranges, which TensorRT 10 was the last to have; use backend=trt"
                )
            if not spec.quantization.explicit:
                raise Unsupported(
                    "INT8 plugins use the ranges that the suite calibrates; use quantization.scheme=explicit"
                )
        check_options_used(spec, can.weak_typing)
        per_shape = options.engines is Engines.per_shape
        for engine_spec in [replace(spec, shapes=(shape,)) for shape in spec.shapes] if per_shape else [spec]:
            check_padded(engine_spec)

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the release of TensorRT, and whether its plugin library can be loaded."""
        release = super().findings(device)
        if any(finding.status == MISSING for finding in release):
            return release
        loaded = self.api.trt.init_libnvinfer_plugins(Log(self.api).logger, "")
        text = "libnvinfer_plugin is loaded" if loaded else "libnvinfer_plugin cannot be loaded"
        status = OK if loaded else MISSING
        return *release, Finding("plugin library", status, text, "" if loaded else INSTALL_COMMAND)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        floating = floating_nodes(spec.options_as(PluginOptions))
        return SourceForm(arrays=True, ranges=spec.precision == "int8", floating=floating)

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        return self.engine(spec, engine_key(spec, source), partial(define_from_weights, source=source))

    def layout(self, spec: BuildSpec) -> Layout | None:
        return layout_of(spec, self.api.can)


def engine_key(spec: BuildSpec, source: Source) -> dict[str, object]:
    """Return everything but the options that an engine depends on, for its key in the cache."""
    assert source.arrays is not None
    options, notes = spec.options_as(PluginOptions), source.arrays.notes
    key: dict[str, object] = {
        "arrays": source.arrays.sha256,
        "ranges": source.ranges.sha256 if source.ranges else "",
        "left": excluded_from_int8(source),
        "marked": list(source.marked),
        "form": CACHE_VERSION,
        "epsilon": notes["epsilon"],
        **({"shift": True} if spec.quantization.shift else {}),
        **({"flat_gelu": True} if choices_of(spec, 0).flat_gelu else {}),
    }
    if "head" in notes:
        key |= {"head": notes["head"], "rounded": options.pad_to_multiple_of > 1}
        pooling = from_json(Mapping[str, object], notes["head"], "head")["pooling"]
        key |= {"joined": JOINED} if isinstance(pooling, list) and len(pooling) > 1 else {}
    tuned = {profile.opt for profile in plan_profiles(spec.shapes, options)} & spec.tokens.keys()
    if options.layout.name == "packed" and tuned:
        key["tokens"] = {str(shape): spec.tokens[shape] for shape in sorted(tuned)}
    return key


def _all_int8(spec: BuildSpec) -> bool:
    """Return whether every tensor between the embeddings and the output can be INT8."""
    options = spec.options_as(PluginOptions)
    packed = options.layout.name == "packed" and options.products in (Products.auto, Products.convolution)
    parts = {options.attention, options.norms}
    return packed and spec.precision == "int8" and Part.fp16 not in parts
