"""The heads of fine-tuned checkpoints, applied to hidden states that any path computed.

A path runs the encoder; what classification and question answering put on top of it is a few small products, which
stay FP32 and are the same for every path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Unsupported
from backends.checkpoint_files import read_config, weight_files
from backends.labels import label_names, label_places, not_a_choice


def span_head(folder: Path) -> dict[str, Array]:
    """weight [2, hidden] and bias [2] FP32 of a question answering head.

    Raises:
        Unsupported: the checkpoint has none.
    """
    from safetensors import safe_open

    found = {}
    for path in weight_files(folder):
        # By torch, since numpy has no bfloat16.
        with safe_open(path, "pt") as tensors:
            for kind in ("weight", "bias"):
                if f"qa_outputs.{kind}" in tensors.keys():  # noqa: SIM118  not a mapping
                    found[kind] = tensors.get_tensor(f"qa_outputs.{kind}").float().numpy()
    if found.keys() != {"weight", "bias"}:
        raise Unsupported("this checkpoint has no question answering head (qa_outputs)")
    return found


def classifier(folder: Path) -> Callable[[Array], Array]:
    """From first tokens' hidden states [texts, hidden] to the places of the most likely labels [texts].

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
        raise Unsupported(f"this checkpoint has no classification head: it lacks {missing}")
    given = _given(getattr(model, model.base_model_prefix))
    setattr(model, model.base_model_prefix, given)
    model.float().eval()

    def classify(hidden: Array) -> Array:
        given.hidden = torch.from_numpy(hidden.astype(np.float32))[:, None]
        with torch.inference_mode():
            logits = model(input_ids=torch.zeros(len(hidden), 1, dtype=torch.long)).logits
        return np.asarray(logits.argmax(-1).numpy())

    return classify


def _given(base: Any) -> Any:
    """A module in the place of the encoder that answers with the hidden states it was given."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pooler = _pooler(base)
            self.hidden = torch.empty(0)

        def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPooling:
            pooled = None if self.pooler is None else self.pooler(self.hidden)
            return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)

    return Given()


def _pooler(base: Any) -> Any:
    """From hidden states [texts, tokens, hidden] to what a head reads; None where the model has no pooler."""
    pooler, activation = getattr(base, "pooler", None), getattr(base, "pooler_activation", None)
    if pooler is None or activation is None:
        return pooler
    return lambda hidden: activation(pooler(hidden[:, 0]))  # ALBERT's pooler is a plain layer


def check_head(folder: Path, readout: str, labels: Sequence[str], reading: str = "auto") -> None:
    """Check that the checkpoint has the head that `readout` (see backends/readout.py) is for, and knows the labels.

    Raises:
        Unsupported: it has no such head, or its head does not choose one label of several.
        ValueError: the labels are not the checkpoint's, or can be read in two ways.
    """
    if readout == "spans":
        span_head(folder)
    if readout == "first":
        if problem := not_a_choice(read_config(folder)):
            raise Unsupported(problem)
        classifier(folder)
        label_places(label_names(folder), labels, reading)
