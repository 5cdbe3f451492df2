"""PyTorch without padding: an encoder on packed tokens with variable-length attention, from plain weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from backends.model.heads import Head
from backends.torch_.description import PackedOptions
from backends.torch_.pytorch import TorchSteps
from backends.torch_.torch_findings import torch_findings

if TYPE_CHECKING:
    import torch

    from backends.model.output_head import OutputHead

    Tensors = Mapping[str, torch.Tensor]


class TorchPacked(Backend):
    distributions = ("torch",)

    def check(self, spec: BuildSpec) -> None:
        if spec.precision not in ("fp16", "bf16", "fp32") or (spec.device.kind == "cuda" and spec.precision == "fp32"):
            raise Unsupported(
                f"variable-length attention does not support {spec.precision} on this device; "
                "use precision=fp16 or bf16 (on a CPU, fp32 is also possible)"
            )
        if not versions_of(("torch",)):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        return torch_findings(device)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(arrays=True)

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        assert source.arrays is not None
        return source.arrays

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch  # noqa: F401  timed separately

        yield "import", None
        yield "load", self._load(spec, artifact)

    def _load(self, spec: BuildSpec, artifact: Artifact) -> Session:
        import torch

        if spec.threads:
            torch.set_num_threads(spec.threads)
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(spec.precision, torch.float32)
        with np.load(artifact.path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        weights = {name: torch.from_numpy(array).to(spec.device.kind, dtype) for name, array in arrays.items()}
        head: OutputHead | None = None
        if notes := from_json(Mapping[str, object], artifact.notes.get("head", {}), "head"):
            from backends.model.output_head import OutputHead

            head = OutputHead(Head.of_arrays(arrays, notes)).to(spec.device.kind, dtype)
        epsilon = from_json(float, artifact.notes["epsilon"], "epsilon")
        return PackedSession(PackedModel(weights, epsilon, head), spec)


def encode(weights: Tensors, inputs: Tensors, longest: int, epsilon: float) -> torch.Tensor:
    """Return the last hidden state [tokens, hidden] of packed tokens.

    Args:
        weights: tensors with the names and shapes of backends/model/weights.py.
        inputs: ids, segments, positions [tokens] and starts [batch + 1], int32.
        longest: number of tokens of the longest sequence, or more.
        epsilon: epsilon of layer normalization.
    """
    import torch.nn.functional as functional

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        gamma, beta = weights[f"{name}_gamma"], weights[f"{name}_beta"]
        return functional.layer_norm(x, gamma.shape, gamma, beta, epsilon)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, weights[f"{name}_weight"], weights[f"{name}_bias"])

    x = weights["word"][inputs["ids"]] + weights["type"][inputs["segments"]] + weights["position"][inputs["positions"]]
    x = norm(x, "embeddings")
    if "projection_weight" in weights:
        x = linear(x, "projection")
    for layer in range(sum(name.endswith("/qkv_weight") for name in weights)):
        qkv_weight, qkv_bias = weights[f"{layer}/qkv_weight"], weights[f"{layer}/qkv_bias"]
        qkv = functional.linear(x, qkv_weight.flatten(0, 2), qkv_bias.flatten()).reshape(len(x), *qkv_bias.shape)
        query, key, value = qkv.unbind(1)
        context = attend(query, key, value, inputs["starts"], longest).flatten(1)
        output = weights[f"{layer}/output_weight"].flatten(1)
        x = norm(x + functional.linear(context, output, weights[f"{layer}/output_bias"]), f"{layer}/attention")
        x = norm(x + linear(functional.gelu(linear(x, f"{layer}/up")), f"{layer}/down"), f"{layer}/output")
    return x


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int
) -> torch.Tensor:
    """Compute attention within each sequence; all tensors are [tokens, heads, d].

    The values of tokens after the last sequence are undefined. A CPU has no kernel for it, so the sequences are
    computed one after another.
    """
    import torch

    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        attended: torch.Tensor = varlen_attn(query, key, value, starts, starts, longest, longest)  # type: ignore[assignment]
        return attended
    attended = torch.zeros_like(query)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (tensor[begin:end].transpose(0, 1)[None] for tensor in (query, key, value))
        attended[begin:end] = torch.nn.functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
    return attended


@dataclass(frozen=True)
class PackedModel:
    """Encoder and head on packed tokens.

    Attributes:
        weights, epsilon: see `encode`.
        head: None for hidden states.
    """

    weights: Tensors
    epsilon: float
    head: OutputHead | None

    def run(self, inputs: Tensors, longest: int) -> torch.Tensor:
        """Return [batch, ...], or [tokens, ...] if the output has values for each token; see `encode`."""
        hidden = encode(self.weights, inputs, longest, self.epsilon)
        if self.head is None:
            return hidden
        from backends.torch_.packed_head import packed_output

        return packed_output(self.head, hidden, inputs)


class PackedSession(TorchSteps):
    """Session of an encoder on packed tokens. A CUDA graph is valid for one number of tokens and one padded shape."""

    def __init__(self, model: PackedModel, spec: BuildSpec) -> None:
        super().__init__(spec.device.kind, spec.device.index)
        self._model: PackedModel | None = model
        self._multiple = spec.options_as(PackedOptions).pad_to_multiple_of
        self._per_token = spec.output.per_token
        self._packing: Packing | None = None

    def close(self) -> None:
        self._model = None
        super().close()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._packing = pack(feeds, self._multiple)
        self._use(self._arrays(), self._packing.shape)
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        self._fill(self._arrays())

    def _arrays(self) -> dict[str, Array]:
        return {name: getattr(self._packing, name) for name in ("ids", "segments", "positions", "starts")}

    def _forward(self) -> torch.Tensor:
        assert self._packing is not None
        assert self._model is not None
        return self._model.run(self._buffers.inputs, self._packing.shape[1])

    def fetch(self) -> Array:
        """Return the output. Values for each token are restored to [batch, sequence, ...] on the device."""
        assert self._packing is not None
        packing, output = self._packing, self._buffers.output
        assert output is not None
        if not self._per_token:
            return self._copy_out(output)
        batch, sequence = packing.shape
        if packing.padded:
            with self._on_stream:
                starts = self._buffers.inputs["starts"][:, None].long()
                places = starts[:-1] + self._torch.arange(sequence, device=output.device)
                outside = places >= starts[1:]
                output = output[places.clamp_max(len(output) - 1)].masked_fill(outside[..., None], 0)
        return self._copy_out(output.reshape(batch, sequence, output.shape[-1]))
