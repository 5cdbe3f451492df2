"""PyTorch without padding: an encoder on packed tokens with variable-length attention, from plain weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from backends.torch_.description import PackedOptions
from backends.torch_.pytorch import TorchSteps
from backends.torch_.torch_findings import torch_findings

if TYPE_CHECKING:
    import torch

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
            weights = {name: torch.from_numpy(loaded[name]).to(spec.device.kind, dtype) for name in loaded.files}
        multiple = spec.options_as(PackedOptions).pad_to_multiple_of
        epsilon = from_json(float, artifact.notes["epsilon"], "epsilon")
        return PackedSession(weights, epsilon, spec.device.kind, spec.device.index, multiple)


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


class PackedSession(TorchSteps):
    """Session of an encoder on packed tokens. A CUDA graph is valid for one number of tokens and one padded shape."""

    def __init__(self, weights: Tensors, epsilon: float, kind: str, index: int, multiple: int) -> None:
        super().__init__(kind, index)
        self._weights, self._epsilon, self._multiple = weights, epsilon, multiple
        self._packing: Packing | None = None

    def close(self) -> None:
        self._weights = {}
        super().close()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._packing = pack(feeds, self._multiple)
        self._use(self._arrays(), self._packing.is_token.shape)
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        self._fill(self._arrays())

    def _arrays(self) -> dict[str, Array]:
        return {name: getattr(self._packing, name) for name in ("ids", "segments", "positions", "starts")}

    def _forward(self) -> torch.Tensor:
        assert self._packing is not None
        return encode(self._weights, self._buffers.inputs, self._packing.is_token.shape[1], self._epsilon)

    def fetch(self) -> Array:
        assert self._packing is not None
        return self._packing.restore(self._copy_out())
