"""Tokenizer of a checkpoint: load it with transformers, find its special tokens, check its ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unavailable
from backends.model.checkpoint_files import tokenizer_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files of a vocabulary. A checkpoint with one of them has a tokenizer."""


def has_tokenizer(folder: Path) -> bool:
    """Return whether the checkpoint has a tokenizer that transformers can read."""
    return bool({path.name for path in tokenizer_files(folder)} & set(VOCABULARIES))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the checkpoint with transformers. Run no code from the checkpoint.

    Raises:
        Unavailable: the checkpoint has no tokenizer, or transformers cannot read it.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    if not has_tokenizer(folder):
        raise Unavailable("the checkpoint has no tokenizer; add tokenizer.json or vocab.txt to its folder")
    logging.set_verbosity_error()
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception; a damaged file can make transformers raise any
        first_line = (str(error).strip().splitlines() or [""])[0][:200].replace(str(folder), "the checkpoint")
        raise Unavailable(
            f"transformers cannot read the checkpoint's tokenizer ({type(error).__name__}: {first_line}); "
            "fetch it again, or save it again as tokenizer.json"
        ) from None


def fast_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the checkpoint's tokenizer of the library `tokenizers`; None if the checkpoint has only a slow one.

    Raises:
        Unavailable: see `load_tokenizer`.
    """
    tokenizer = load_tokenizer(folder)
    return tokenizer.backend_tokenizer if tokenizer.is_fast else None


def tokenizer_threads() -> tuple[int, str]:
    """Return the number of threads that `tokenizers` uses for a batch in this process, and its source.

    Returns:
        The number, and "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", or "CPUs" for the default.
    """
    # The values that the library reads as off.
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("off", "false", "f", "no", "n", "0"):
        return 1, "TOKENIZERS_PARALLELISM"
    given = os.environ.get("RAYON_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given), "RAYON_NUM_THREADS"
    return len(os.sched_getaffinity(0)), "CPUs"


def special_tokens_of(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer adds before and after a single text; both may be empty."""
    for text in texts:
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        full = tokenizer(text)["input_ids"]
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()


def gives_token_types(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether transformers passes the token types of this tokenizer to a model. Otherwise, zeros are used."""
    return "token_type_ids" in tokenizer.model_input_names


def ids_out_of_range(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Sequence[int]], vocabulary: int
) -> dict[int, str]:
    """Return the ids in `rows` without a row in the model's embedding, each with the text of its token."""
    beyond = sorted({int(token) for row in rows for token in row if token >= vocabulary})
    return {token: str(tokenizer.convert_ids_to_tokens(token)) for token in beyond}


def check_ids(used: Iterable[int], beyond: Mapping[int, str], vocabulary: int) -> None:
    """Check that the model's embedding has a row for each used id.

    Args:
        used: the ids.
        beyond: texts of the tokens of ids out of range, by id, for the message.
        vocabulary: number of rows of the embedding.

    Raises:
        Unavailable: an id is out of range.
    """
    for token in sorted(set(used)):
        if token >= vocabulary:
            raise Unavailable(
                f"the texts have token {token} ({beyond.get(token, '')!r}) and the model's embedding has {vocabulary} "
                "rows, 0 to "
                f"{vocabulary - 1}; resize the embedding, give texts without this token (task.path=), or, for latency, "
                "use lengths.tokens=random"
            )


def check_counted(rows: Iterable[Sequence[int] | Array], uncounted: int | None) -> None:
    """Check that transformers gives each token of each row its own position. Only its own code has the other ones.

    Args:
        rows: ids without padding.
        uncounted: see `uncounted_id` of backends/model/families.py.

    Raises:
        Unavailable: a row has a token without its own position.
    """
    if uncounted is not None and any(uncounted in row for row in rows):
        raise Unavailable(
            f"the texts have the token {uncounted}, padding, for which this model counts no position; "
            "give texts without it (task.path=), or, for latency, use lengths.tokens=random"
        )


def counted(ids: Array, uncounted: int | None, vocabulary: int) -> Array:
    """Return random ids in which another id replaces `uncounted`, see `check_counted`."""
    return ids if uncounted is None else np.where(ids == uncounted, (uncounted + 1) % vocabulary, ids)


def no_tokens_error(option: str) -> Unavailable:
    """Return the error for texts from which the tokenizer makes no tokens. `option` extends the fix in the message."""
    return Unavailable(f"the tokenizer makes no tokens from these texts; give other texts as task.path=FILE{option}")
