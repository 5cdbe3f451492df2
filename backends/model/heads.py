"""The layers after the encoder: pooling, linear layers, norms and activations that turn hidden states into an output.

Every backend computes the same layers: as a module of PyTorch (backends/model/output_head.py), which the ONNX export
also contains, on packed tokens (backends/torch_/packed_head.py), or as layers of a TensorRT network
(backends/tensorrt_/plugins/head_layers.py). Their weights come from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array, Unsupported
from backends.json_codec import from_json
from backends.model.checkpoint_files import WEIGHTS, read_config, read_object, weight_files
from backends.model.families import Config, family_of
from backends.model.labels import label_names, label_places
from backends.model.pooling import pooling_of
from backends.model_output import EMBEDDING, HIDDEN, LOGITS, SCORE, SPANS, Output, label_count

ACTIVATIONS = ("tanh", "relu", "gelu")
LINEAR, NORM, NORMALIZE = "linear", "norm", "normalize"

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
    """

    pooling: tuple[str, ...]
    layers: tuple[Layer, ...]
    epsilon: float = 1e-5

    def arrays(self) -> dict[str, Array]:
        """Return the weights by name: head/<layer>_weight and head/<layer>_bias."""
        named = {
            f"head/{number}_{name}": value
            for number, layer in enumerate(self.layers)
            for name, value in (("weight", layer.weight), ("bias", layer.bias))
        }
        return {name: value for name, value in named.items() if value is not None}

    def notes(self) -> dict[str, object]:
        """Return everything but the weights, in JSON types."""
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
        Unsupported: the checkpoint lacks the head or its files define a pooling that is not supported.
        Unavailable: a file of the checkpoint is malformed.
    """
    if output.kind == HIDDEN:
        return None
    config = read_config(folder)
    if output.kind == EMBEDDING:
        return _embedding_head(folder, output)
    names = family_of(config).heads
    if output.kind == SPANS:
        return _named_head(folder, config, names.spans, ())
    if output.per_token:
        head = _named_head(folder, config, names.token_classifier, ())
    else:
        head = _named_head(folder, config, names.classifier, (_of_config(names.pooling, config),))
    _check_labels(head, config, output)
    return head


def _embedding_head(folder: Path, output: Output) -> Head:
    pooling = pooling_of(folder).changed_by(output)
    layers = [layer for path in pooling.dense for layer in _dense_layers(folder / path)]
    return Head(pooling.modes, (*layers, *((Layer(NORMALIZE),) if pooling.normalized else ())))


def _dense_layers(folder: Path) -> list[Layer]:
    """Return the layers of a Dense module of sentence-transformers."""
    settings = read_object(folder / "config.json")
    name = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in DENSE_ACTIVATIONS:
        raise Unsupported(
            f"{folder.name}/config.json has the activation {name[:40]!r}; it must be one of "
            f"{', '.join(DENSE_ACTIVATIONS)}"
        )
    if not (folder / WEIGHTS).is_file():
        raise Unsupported(f"{folder.name} has no {WEIGHTS}; save the checkpoint with safetensors")
    weights = _tensors([folder / WEIGHTS], ("linear.weight", "linear.bias"))
    linear = Layer(LINEAR, weights["linear.weight"], weights.get("linear.bias"))
    activation = DENSE_ACTIVATIONS[name]
    return [linear, Layer(activation)] if activation else [linear]


def _named_head(folder: Path, config: Config, names: Sequence[str], pooling: tuple[str, ...]) -> Head:
    """Return the layers with these names (see HeadNames), with their weights."""
    chosen = [_of_config(name, config) for name in names]
    modules = [name for name in chosen if name not in ACTIVATIONS]
    weights = _tensors(weight_files(folder), [f"{name}.{kind}" for name in modules for kind in ("weight", "bias")])
    if missing := [f"{name}.weight" for name in modules if f"{name}.weight" not in weights]:
        kind = {"qa_outputs": "question answering head (qa_outputs)"}.get(names[-1], "classification head")
        raise Unsupported(
            f"this checkpoint has no {kind}: it lacks {', '.join(missing)}; give a fine-tuned checkpoint, or "
            "output=embedding or output=hidden"
        )
    layers = []
    for name in chosen:
        if name in ACTIVATIONS:
            layers.append(Layer(name))
            continue
        weight = weights[f"{name}.weight"]
        layers.append(Layer(NORM if weight.ndim == 1 else LINEAR, weight, weights.get(f"{name}.bias")))
    epsilon = config.get("norm_eps", config.get("layer_norm_eps", 1e-5))
    return Head(pooling, tuple(layers), from_json(float, epsilon, "norm_eps"))


def _of_config(name: str, config: Config) -> str:
    """Return `name`, or for "FIELD|NAME" the value of a field of config.json, with its default."""
    if "|" not in name:
        return name
    field, default = name.split("|")
    value = str(config.get(field) or default)
    known = {**{activation: activation for activation in ACTIVATIONS}, "cls": "cls", "bos": "cls", "mean": "mean"}
    if value not in known:
        raise Unsupported(
            f"config.json has {field} {value[:40]!r}, which is not supported in a head; use output=embedding"
        )
    return known[value]


def _tensors(files: Sequence[Path], names: Sequence[str]) -> dict[str, Array]:
    """Return tensors of a checkpoint in FP32 by name. In the files a name may have a prefix, such as "bert."."""
    from safetensors import safe_open

    found: dict[str, Array] = {}
    for path in files:
        # Read with torch, because numpy has no bfloat16.
        with safe_open(path, "pt") as tensors:
            for stored in tensors.keys():  # noqa: SIM118  not a mapping
                for name in names:
                    if stored == name or stored.endswith(f".{name}"):
                        found[name] = np.asarray(tensors.get_tensor(stored).float().numpy())
    return found


def _check_labels(head: Head, config: Config, output: Output) -> None:
    """Check that the last layer has as many outputs as config.json has labels, and one for a score."""
    weight = head.layers[-1].weight
    assert weight is not None
    labels = label_count(config)
    if len(weight) != labels:
        raise Unsupported(
            f"the checkpoint's head has {len(weight)} outputs, but config.json has {labels} labels; correct id2label "
            "or num_labels in config.json"
        )
    if output.kind == SCORE and labels != 1:
        raise Unsupported(f"output=score needs a head with one output; this one has {labels}: use output=logits")


def check_head(folder: Path, output: Output, labels: Sequence[str], reading: str = "auto") -> None:
    """Check that the checkpoint has the head for `output`, and that the labels of a data set fit it.

    Args:
        labels: labels of the data set; empty if it has none.
        reading: as in `label_places`.

    Raises:
        Unsupported: the checkpoint has no such head.
        ValueError: the checkpoint does not have the labels, or they can be read in two ways.
    """
    head_of(folder, output)
    if output.kind == LOGITS and labels:
        label_places(label_names(folder), labels, reading)
