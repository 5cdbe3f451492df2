"""The output of a model: hidden states, or the result of pooling and a head after the encoder.

Needs CPython 3.10 and the standard library only, because jobs carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AUTO, HIDDEN, EMBEDDING, LOGITS, SPANS, SCORE = "auto", "hidden", "embedding", "logits", "spans", "score"

POOLINGS = ("mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean")
"""Supported poolings, by their names in sentence-transformers. Several are concatenated.

cls: the first token. lasttoken: the last token. mean, max: over the tokens of a text. mean_sqrt_len_tokens: their sum,
divided by the square root of their number. weightedmean: their mean, weighted by position from 1.
"""


@dataclass(frozen=True)
class Output:
    """Output that a session returns.

    Attributes:
        kind: "hidden": last hidden states [batch, sequence, hidden]. "embedding": one vector for each text
            [batch, dimensions]. "logits": [batch, labels], or [batch, sequence, labels] of a token classifier. "spans":
            logits of the first and last token of an answer [batch, sequence, 2]. "score": [batch, 1]. "auto": the
            output that the checkpoint is for, before the checkpoint is known.
        pooling: poolings of an embedding; empty for those of the checkpoint.
        normalize: whether embeddings have length 1; None for the setting of the checkpoint.
        per_token: whether the output has values for each token.
    """

    kind: str = HIDDEN
    pooling: tuple[str, ...] = ()
    normalize: bool | None = None
    per_token: bool = True

    def for_cell(self) -> dict[str, object]:
        """Return the fields of a cell; none for hidden states, so that ids of older cells stay the same."""
        changed: dict[str, object] = {"output": self.kind} if self.kind != HIDDEN else {}
        changed |= {"pooling": list(self.pooling)} if self.pooling else {}
        return changed | ({} if self.normalize is None else {"normalize": self.normalize})


LAST_HIDDEN = Output()


def resolve_output(requested: Output, config: Mapping[str, object], folder: Path | None = None) -> Output:
    """Return the output with "auto" and `per_token` resolved.

    Args:
        config: contents of config.json, or the settings of random weights.
        folder: folder of the checkpoint; None for random weights.
    """
    kind = _kind_of(config, folder) if requested.kind == AUTO else requested.kind
    token_head = kind == LOGITS and architecture_of(config).endswith("ForTokenClassification")
    pooling, normalize = (requested.pooling, requested.normalize) if kind == EMBEDDING else ((), None)
    return Output(kind, pooling, normalize, kind in (HIDDEN, SPANS) or token_head)


def _kind_of(config: Mapping[str, object], folder: Path | None) -> str:
    """Return the output that a checkpoint is for; hidden states if its files name neither pooling nor a head.

    A sentence encoder may keep the name of a head in config.json. The modules.json of a cross-encoder lists no pooling.
    """
    if folder is not None and any(folder.glob("*_Pooling/config.json")):
        return EMBEDDING
    architecture = architecture_of(config)
    if architecture.endswith("ForQuestionAnswering"):
        return SPANS
    if architecture.endswith("ForTokenClassification"):
        return LOGITS
    if architecture.endswith("ForSequenceClassification"):
        return SCORE if label_count(config) == 1 else LOGITS
    return EMBEDDING if folder is not None and (folder / "modules.json").is_file() else HIDDEN


def architecture_of(config: Mapping[str, object]) -> str:
    """Return the class that a config.json names; empty if it names none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list | tuple) and named else ""


def label_count(config: Mapping[str, object]) -> int:
    """Return the number of labels in a config.json; 2, as in transformers, if it gives none."""
    names = config.get("id2label")
    if isinstance(names, Mapping) and names:
        return len(names)
    count = config.get("num_labels", 2)
    return count if isinstance(count, int) else 2
