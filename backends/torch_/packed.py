"""PyTorch without padding: an encoder on packed tokens with variable-length attention, from plain weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from backends.base import (
    Array,
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Feeds,
    Opening,
    Session,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.finding import Finding
from backends.inputs.packing import Packing, pack
from backends.json_codec import from_json
from backends.model.checkpoint_files import read_config
from backends.model.families import layer_names_of
from backends.model.heads import Head
from backends.torch_.description import PackedOptions
from backends.torch_.fp8 import INPUT_RANGES, check_fp8, ranges_in, ranges_of
from backends.torch_.packed_products import packed_products_left_out, packed_ranges
from backends.torch_.torch_findings import torch_findings
from backends.torch_.torch_session import TorchSteps

if TYPE_CHECKING:
    import torch

    from backends.model.output_head import OutputHead

    Tensors = Mapping[str, torch.Tensor]


class TorchPacked(Backend):
    distributions = ("torch",)

    def check(self, spec: BuildSpec) -> None:
        if spec.precision == "fp8":
            check_fp8(spec.device)
        elif spec.precision not in ("fp16", "bf16", "fp32") or (
            spec.device.kind == "cuda" and spec.precision == "fp32"
        ):
            raise Unsupported(
                f"variable-length attention does not support {spec.precision} on this device; "
                "use precision=fp16, bf16 or fp8 (on a CPU, fp32 is also possible)"
            )
        if not versions_of(("torch",)):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        return torch_findings(device)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(arrays=True, linear_ranges=spec.precision == "fp8")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the plain weights unchanged, for FP8 with the largest input of each product as a note."""
        assert source.arrays is not None
        if spec.precision != "fp8":
            return source.arrays
        names = layer_names_of(read_config(source.checkpoint))
        layers = from_json(int, source.arrays.notes["layers"], "layers")
        ranges = packed_ranges(ranges_of(source), names, layers)
        excluded = packed_products_left_out(names, layers, spec.quantization.leave_out)
        ranges = {name: largest for name, largest in ranges.items() if name not in excluded}
        return replace(source.arrays, notes={**source.arrays.notes, INPUT_RANGES: ranges})

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch  # noqa: F401  timed separately

        yield "import", None
        yield "load", self._load(spec, artifact)

    def _load(self, spec: BuildSpec, artifact: Artifact) -> Session:
        import torch

        if spec.threads:
            torch.set_num_threads(spec.threads)
        from backends.torch_.fp8_linear import widen_weights
        from backends.torch_.packed_encoder import PackedModel, compiled, fp8_products, fuses

        dtype = {"fp16": torch.float16, "fp8": torch.float16, "bf16": torch.bfloat16}.get(spec.precision, torch.float32)
        with np.load(artifact.path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        epsilon = from_json(float, artifact.notes["epsilon"], "epsilon")
        ranges = ranges_in(artifact) if spec.precision == "fp8" else {}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        products = fp8_products(tensors, ranges)
        for name in products:
            del tensors[f"{name}_weight"]
        weights = {name: tensor.to(spec.device.kind, dtype) for name, tensor in tensors.items()}
        head: OutputHead | None = None
        if notes := from_json(Mapping[str, object], artifact.notes.get("head", {}), "head"):
            from backends.model.output_head import OutputHead

            head = OutputHead(Head.of_arrays(arrays, notes)).to(spec.device.kind, dtype)
        products = products.to(spec.device.kind)
        if spec.device.kind == "cpu":
            widen_weights(products)
        model = PackedModel(weights, epsilon, head, products, fuses(weights, products))
        return PackedSession(compiled(model, spec), spec)


class PackedSession(TorchSteps):
    """Session of an encoder on packed tokens. A CUDA graph is valid for one number of tokens and one padded shape."""

    def __init__(self, model: Callable[[Tensors, int], torch.Tensor], spec: BuildSpec) -> None:
        """
        Args:
            model: see `PackedModel.run`.
        """
        super().__init__(spec.device.kind, spec.device.index)
        self._model: Callable[[Tensors, int], torch.Tensor] | None = model
        self._multiple = spec.options_as(PackedOptions).pad_to_multiple_of
        self._per_token = spec.output.per_token
        self._packing: Packing | None = None

    def close(self) -> None:
        if hasattr(self._model, "_torchdynamo_orig_callable"):
            self._torch._dynamo.reset()  # as in TorchSession
        self._model = None
        super().close()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._packing = pack(feeds, self._multiple)
        self._use(self._arrays(feeds), self._packing.shape, self._packing.padded)
        yield "set shape"

    def _arrays(self, feeds: Feeds) -> Mapping[str, Array]:
        return {name: getattr(self._packing, name) for name in ("ids", "segments", "positions", "starts")}

    def _forward(self) -> torch.Tensor:
        assert self._packing is not None
        assert self._model is not None
        return self._model(self._buffers.inputs, self._packing.shape[1])

    def _in_shape(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output. Values for each token are restored to [batch, sequence, ...]."""
        assert self._packing is not None
        if not self._per_token:
            return output
        batch, sequence = self._packing.shape
        if self._packing.padded:
            starts = self._buffers.inputs["starts"][:, None].long()
            places = starts[:-1] + self._torch.arange(sequence, device=output.device)
            outside = places >= starts[1:]
            output = output[places.clamp_max(len(output) - 1)].masked_fill(outside[..., None], 0)
        return output.reshape(batch, sequence, output.shape[-1])
