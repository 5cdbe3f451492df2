"""Heads of fine-tuned checkpoints. They are applied to the hidden states of every path.

A path runs only the encoder. A head for classification or question answering is a few small matrix products. It stays
in FP32 and is the same for every path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unsupported
from backends.model.checkpoint_files import read_config, weight_files
from backends.model.labels import label_names, label_places, single_label_fault

if TYPE_CHECKING:
    import torch


def span_head(folder: Path) -> dict[str, Array]:
    """Read the question answering head: weight [2, hidden] and bias [2], FP32.

    Raises:
        Unsupported: the checkpoint has none.
    """
    from safetensors import safe_open

    head = {}
    for path in weight_files(folder):
        # Read with torch, because numpy has no bfloat16.
        with safe_open(path, "pt") as tensors:
            for kind in ("weight", "bias"):
                if f"qa_outputs.{kind}" in tensors.keys():  # noqa: SIM118  not a mapping
                    head[kind] = tensors.get_tensor(f"qa_outputs.{kind}").float().numpy()
    if head.keys() != {"weight", "bias"}:
        raise Unsupported("this checkpoint has no question answering head (qa_outputs); give a checkpoint that has it")
    return head


def classifier(folder: Path) -> Callable[[Array], Array]:
    """Return a function from hidden states of first tokens [texts, hidden] to places of the most likely labels [texts].

    Raises:
        Unsupported: the checkpoint has no classification head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"]))
        raise Unsupported(
            f"this checkpoint has no classification head: it lacks {missing}; give a fine-tuned checkpoint"
        )
    encoder = _precomputed_encoder(getattr(model, model.base_model_prefix))
    setattr(model, model.base_model_prefix, encoder)
    model.float().eval()

    def classify(hidden: Array) -> Array:
        encoder.hidden = torch.from_numpy(hidden.astype(np.float32))[:, None]
        with torch.inference_mode():
            logits = model(input_ids=torch.zeros(len(hidden), 1, dtype=torch.long)).logits
        return np.asarray(logits.argmax(-1).numpy())

    return classify


def _precomputed_encoder(base: torch.nn.Module) -> torch.nn.Module:
    """Return a module that replaces the encoder `base` and returns precomputed hidden states."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class PrecomputedEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pooler = _pooler(base)
            self.hidden = torch.empty(0)

        def forward(self, *_: object, **__: object) -> BaseModelOutputWithPooling:
            pooled = None if self.pooler is None else self.pooler(self.hidden)
            return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)

    return PrecomputedEncoder()


def _pooler(base: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a function from hidden states [texts, tokens, hidden] to the input of a head; None without a pooler."""
    pooler, activation = getattr(base, "pooler", None), getattr(base, "pooler_activation", None)
    if pooler is None or activation is None:
        return pooler
    return lambda hidden: activation(pooler(hidden[:, 0]))  # ALBERT's pooler is only a linear layer


def check_head(folder: Path, readout: str, labels: Sequence[str], reading: str = "auto") -> None:
    """Check that the checkpoint has the head that `readout` needs, and that the labels fit it.

    Args:
        readout: a name from backends/inputs/readout.py.
        labels: labels of the data set.
        reading: as in `label_places`.

    Raises:
        Unsupported: the checkpoint has no such head, or its head does not select one of several labels.
        ValueError: the checkpoint does not have the labels, or they can be read in two ways.
    """
    if readout == "spans":
        span_head(folder)
    if readout == "first":
        if problem := single_label_fault(read_config(folder)):
            raise Unsupported(problem)
        classifier(folder)
        label_places(label_names(folder), labels, reading)
