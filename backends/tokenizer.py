"""A checkpoint's tokenizer, by transformers: how it is loaded, and what it puts around a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.base import Unavailable
from backends.checkpoint_files import tokenizer_files

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files any of which makes a tokenizer."""


def has_tokenizer(folder: Path) -> bool:
    """Whether the checkpoint has a tokenizer that transformers can read."""
    return bool({path.name for path in tokenizer_files(folder)} & set(VOCABULARIES))


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of the checkpoint; code from the checkpoint is never run.

    Raises:
        Unavailable: the checkpoint has none, or transformers cannot read it.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    if not has_tokenizer(folder):
        raise Unavailable("the checkpoint has no tokenizer (tokenizer.json or vocab.txt)")
    logging.set_verbosity_error()
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception, and transformers whatever a file leads it to
        first = (str(error).strip().splitlines() or [""])[0][:200].replace(str(folder), "the checkpoint")
        raise Unavailable(
            f"transformers cannot read the checkpoint's tokenizer ({type(error).__name__}: {first}); "
            "fetch it again, or save it again as tokenizer.json"
        ) from None


def special_tokens_around(tokenizer: Any, texts: Iterable[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer itself puts before and after a single text; both may be empty."""
    for text in texts:
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = tokenizer(text)["input_ids"]
        for start in range(len(whole) - len(bare) + 1):
            if bare and whole[start : start + len(bare)] == bare:
                return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    return (), ()


def gives_token_types(tokenizer: Any) -> bool:
    """Whether transformers passes this tokenizer's token types to a model; the model takes zeros otherwise."""
    return "token_type_ids" in tokenizer.model_input_names


def outside(tokenizer: Any, rows: Iterable[Sequence[int]], vocabulary: int) -> dict[int, str]:
    """Ids in `rows` that the model's embedding has no row for, with the text of their tokens."""
    beyond = sorted({int(token) for row in rows for token in row if token >= vocabulary})
    return {token: str(tokenizer.convert_ids_to_tokens(token)) for token in beyond}


def check_ids(used: Iterable[int], beyond: Mapping[int, str], vocabulary: int) -> None:
    """Check that the model has an embedding for all ids that are used.

    Args:
        beyond: the texts of ids that it has none for.

    Raises:
        Unavailable: an id is out of range.
    """
    for token in sorted(set(used)):
        if token >= vocabulary:
            raise Unavailable(
                f"the texts have token {token} ({beyond.get(token, '')!r}) and the model's embedding has {vocabulary} "
                "rows, 0 to "
                f"{vocabulary - 1}; resize the embedding, give texts without it (task.path=), or, for latency, "
                "lengths.tokens=random"
            )


def no_tokens(option: str) -> Unavailable:
    """The error for texts of which the tokenizer makes no tokens."""
    return Unavailable(f"the tokenizer makes no tokens of these texts; give others as task.path=FILE{option}")
