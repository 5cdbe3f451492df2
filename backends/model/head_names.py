"""Layers of the heads of a model family, by the names of their modules in transformers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadNames:
    """Layers of each head, in order: names of modules, and activations.

    A module with a matrix is a linear layer, one with a vector is a norm. An activation is a name from ACTIVATIONS
    (backends/model/heads.py), or "FIELD|NAME" for the activation that a field of config.json names, with its default.

    Attributes:
        classifier: head of ForSequenceClassification, after the pooling; with the pooling "late" all but its last layer
            are before it.
        token_classifier: head of ForTokenClassification; it reads every token.
        spans: head of ForQuestionAnswering; it reads every token.
        pooling: pooling before `classifier`, or "FIELD|NAME" as for an activation.
    """

    classifier: tuple[str, ...] = ("pooler.dense", "tanh", "classifier")
    token_classifier: tuple[str, ...] = ("classifier",)
    spans: tuple[str, ...] = ("qa_outputs",)
    pooling: str = "cls"
