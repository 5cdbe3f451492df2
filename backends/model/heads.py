"""The layers after the encoder: pooling, linear layers, norms and activations that turn hidden states into an output.

Every backend computes the same layers: as a module of PyTorch (backends/model/output_head.py), which the ONNX export
also contains, on packed tokens (backends/torch_/packed_head.py), or as layers of a TensorRT network
(backends/tensorrt_/plugins/head_layers.py). Their weights come from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array, Unavailable, Unsupported
from backends.json_codec import from_json
from backends.model.checkpoint_files import WEIGHTS, read_config, read_object, tensor_shapes, weight_files
from backends.model.families import Config, family_of
from backends.model.pooling import hidden_size_of, pooling_of
from backends.model_output import AUTO, EMBEDDING, HIDDEN, SCORE, SPANS, Output, label_count, resolve_output

ACTIVATIONS = ("tanh", "relu", "gelu")
LINEAR, NORM, NORMALIZE = "linear", "norm", "normalize"

LATE = "late"
"""Pooling of a head that is the mean of the logits of all tokens."""

DENSE_ACTIVATIONS = {"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}
"""Activation of a Dense module of sentence-transformers by the class in its config.json."""


@dataclass(frozen=True)
class Layer:
    """One layer of a head.

    Attributes:
        kind: "linear", "norm" (layer normalization), "normalize" (to length 1), or one of ACTIVATIONS.
        weight: FP32 [out, in] of a linear layer, [features] of a norm; None for others.
        bias: FP32 [out] or [features]; None without one.
    """

    kind: str
    weight: Array | None = None
    bias: Array | None = None


@dataclass(frozen=True)
class Head:
    """Layers after the encoder.

    Attributes:
        pooling: names from POOLINGS (backends/model_output.py), concatenated; empty if the layers read each token.
        layers: applied in order.
        epsilon: epsilon of norms.
        token_layers: number of layers before the pooling. They read each token.
    """

    pooling: tuple[str, ...]
    layers: tuple[Layer, ...]
    epsilon: float = 1e-5
    token_layers: int = 0

    def arrays(self) -> dict[str, Array]:
        """Return the weights by name: head/<layer>_weight and head/<layer>_bias."""
        named = {
            f"head/{number}_{name}": value
            for number, layer in enumerate(self.layers)
            for name, value in (("weight", layer.weight), ("bias", layer.bias))
        }
        return {name: value for name, value in named.items() if value is not None}

    def notes(self) -> dict[str, object]:
        """Return everything but the weights, in JSON types.

        Raises:
            Unsupported: layers read each token before the pooling, which packed paths do not have.
        """
        if self.token_layers:
            raise Unsupported(
                "a head with layers before its pooling is not supported on packed tokens; use backend=ort"
            )
        kinds = [layer.kind for layer in self.layers]
        return {"pooling": list(self.pooling), "layers": kinds, "epsilon": self.epsilon}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array], notes: Mapping[str, object]) -> Head:
        """Return the head that `arrays` and `notes` describe."""
        layers = tuple(
            Layer(kind, arrays.get(f"head/{number}_weight"), arrays.get(f"head/{number}_bias"))
            for number, kind in enumerate(from_json(list[str], notes["layers"], "layers"))
        )
        pooling = from_json(tuple[str, ...], notes["pooling"], "pooling")
        return cls(pooling, layers, from_json(float, notes["epsilon"], "epsilon"))


def head_of(folder: Path, output: Output) -> Head | None:
    """Return the layers that give `output` from the hidden states of a checkpoint; None for hidden states.

    Raises:
        Unsupported, Unavailable: as `check_output`.
    """
    check_output(folder, output)
    if output.kind == HIDDEN:
        return None
    if output.kind == EMBEDDING:
        return _embedding_head(folder, output)
    config = read_config(folder)
    names, pooling, token_layers = _layers_of(config, output)
    weights = _tensors(weight_files(folder), _weight_names(names))
    layers = []
    for name in names:
        if name in ACTIVATIONS:
            layers.append(Layer(name))
            continue
        weight = weights[f"{name}.weight"]
        layers.append(Layer(NORM if weight.ndim == 1 else LINEAR, weight, weights.get(f"{name}.bias")))
    epsilon = from_json(float, config.get("norm_eps", config.get("layer_norm_eps", 1e-5)), "norm_eps")
    return Head(pooling, tuple(layers), epsilon, token_layers)


def check_output(folder: Path, output: Output) -> None:
    """Check that a checkpoint has the layers that give `output`. Reads only headers of the weights, without torch.

    Raises:
        Unsupported: the checkpoint lacks the head, its number of outputs differs from the labels in config.json, or
            its files define a pooling that is not supported.
        Unavailable: a file of the checkpoint is malformed.
    """
    if output.kind == HIDDEN:
        return
    if output.kind == EMBEDDING:
        _check_dense(folder, output)
        return
    config = read_config(folder)
    names, *_ = _layers_of(config, output)
    shapes = _shapes(weight_files(folder), _weight_names(names))
    if missing := [name for name in _weight_names(names) if name.endswith(".weight") and name not in shapes]:
        kind = {"qa_outputs": "question answering head (qa_outputs)"}.get(names[-1], "classification head")
        own = resolve_output(Output(AUTO), config).kind
        others = [name for name in dict.fromkeys((own, EMBEDDING, HIDDEN)) if name != output.kind]
        raise Unsupported(
            f"this checkpoint has no {kind}: it lacks {', '.join(missing)}; give a checkpoint with this head, or use "
            f"output={' or output='.join(others)}"
        )
    _check_labels(shapes[f"{names[-1]}.weight"][0], config, output)


def _layers_of(config: Config, output: Output) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the names of the layers of a head (see HeadNames), its poolings, and the number of layers before them."""
    heads = family_of(config).heads
    names = heads.spans if output.kind == SPANS else heads.token_classifier if output.per_token else heads.classifier
    layers = tuple(_of_config(name, config) for name in names)
    if output.per_token:
        return layers, (), 0
    pooling = _of_config(heads.pooling, config)
    # The last layer is linear, so it gives the same for the mean of its inputs as the mean of its outputs.
    return (layers, ("mean",), len(layers) - 1) if pooling == LATE else (layers, (pooling,), 0)


def _weight_names(names: Sequence[str]) -> list[str]:
    return [f"{name}.{kind}" for name in names if name not in ACTIVATIONS for kind in ("weight", "bias")]


def _embedding_head(folder: Path, output: Output) -> Head:
    pooling = pooling_of(folder).changed_by(output)
    layers = [layer for path in pooling.dense for layer in _dense_layers(folder / path)]
    return Head(pooling.modes, (*layers, *((Layer(NORMALIZE),) if pooling.normalized else ())))


def _dense_layers(folder: Path) -> list[Layer]:
    """Return the layers of a Dense module of sentence-transformers."""
    activation = _dense_activation(folder)
    weights = _tensors([folder / WEIGHTS], ("linear.weight", "linear.bias"))
    linear = Layer(LINEAR, weights["linear.weight"], weights.get("linear.bias"))
    return [linear, Layer(activation)] if activation else [linear]


def _check_dense(folder: Path, output: Output) -> None:
    """Check the Dense modules after the pooling of an embedding: each reads as many values as are before it.

    Raises:
        Unsupported, Unavailable: as `check_output`.
    """
    pooling, hidden = pooling_of(folder).changed_by(output), hidden_size_of(folder)
    features = hidden * len(pooling.modes) if hidden else 0
    for path in pooling.dense:
        _dense_activation(folder / path)
        shape = tensor_shapes(folder / path / WEIGHTS).get("linear.weight", ())
        if len(shape) != 2 or features not in (0, shape[1]):
            before = f"but {pooling.mode} pooling and the layers after it give {features}"
            fault = f"reads {shape[1]} values, {before}" if len(shape) == 2 else "has no matrix linear.weight"
            raise Unavailable(f"{path}/{WEIGHTS} {fault}; give the files of one checkpoint")
        features = shape[0]


def _dense_activation(folder: Path) -> str:
    """Return the activation of a Dense module of sentence-transformers; empty for none."""
    settings = read_object(folder / "config.json")
    name = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in DENSE_ACTIVATIONS:
        raise Unsupported(
            f"{folder.name}/config.json has the activation {name[:40]!r}; it must be one of "
            f"{', '.join(DENSE_ACTIVATIONS)}"
        )
    if (reads := settings.get("module_input_name", "sentence_embedding")) != "sentence_embedding":
        raise Unsupported(
            f"{folder.name}/config.json reads {str(reads)[:40]}; only Dense modules after the pooling, which read "
            "sentence_embedding, are supported"
        )
    if not (folder / WEIGHTS).is_file():
        raise Unsupported(f"{folder.name} has no {WEIGHTS}; save the checkpoint with safetensors")
    return DENSE_ACTIVATIONS[name]


def _of_config(name: str, config: Config) -> str:
    """Return `name`, or for "FIELD|NAME" the value of a field of config.json, with its default."""
    if "|" not in name:
        return name
    field, default = name.split("|")
    value = str(config.get(field) or default)
    known = {**{name: name for name in (*ACTIVATIONS, "cls", "mean", LATE)}, "bos": "cls"}
    if value not in known:
        raise Unsupported(
            f"config.json has {field} {value[:40]!r}, which is not supported in a head; use output=embedding"
        )
    return known[value]


def _tensors(files: Sequence[Path], names: Sequence[str]) -> dict[str, Array]:
    """Return tensors of a checkpoint in FP32 by name."""
    from safetensors import safe_open

    found: dict[str, Array] = {}
    for path in files:
        # Read with torch, because numpy has no bfloat16.
        with safe_open(path, "pt") as tensors:
            for name, stored in _stored_names(tensors.keys(), names):
                found[name] = np.asarray(tensors.get_tensor(stored).float().numpy())
    return found


def _shapes(files: Sequence[Path], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors of a checkpoint by name."""
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes = tensor_shapes(path)
        found |= {name: shapes[stored] for name, stored in _stored_names(shapes, names)}
    return found


def _stored_names(stored: Iterable[str], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of a name and its name in a file, where it may have a prefix, such as "bert."."""
    for full in stored:
        yield from ((name, full) for name in names if full == name or full.endswith(f".{name}"))


def _check_labels(outputs: int, config: Config, output: Output) -> None:
    """Check that a head has as many outputs as config.json has labels, one for a score, and two for spans."""
    labels = label_count(config)
    if output.kind == SPANS and outputs != 2:
        raise Unsupported(
            f"output=spans needs a head with two outputs, for the first and the last token; this has {outputs}: give "
            "another checkpoint, or use output=hidden or output=embedding"
        )
    if outputs != labels:
        raise Unsupported(
            f"the checkpoint's head has {outputs} output{'s' * (outputs != 1)}, but config.json has {labels} "
            f"label{'s' * (labels != 1)}; correct id2label or num_labels in config.json"
        )
    if output.kind == SCORE and labels != 1:
        raise Unsupported(f"output=score needs a head with one output; this one has {labels}: use output=logits")
