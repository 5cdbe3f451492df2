"""Texts of requests as token ids, in the Python of a server.

With tokenizer.json it needs the library tokenizers, and otherwise transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array
from backends.served_model.served_facts import ServedFacts

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Row:
    """A text as int32 arrays [tokens]: token ids, special tokens included, and token types."""

    ids: Array
    types: Array

    @classmethod
    def of(cls, ids: Sequence[int] | Array, types: Sequence[int] | Array | None = None) -> Row:
        array = np.asarray(ids, np.int32)
        return cls(array, np.zeros_like(array) if types is None else np.asarray(types, np.int32))


Tokenize = Callable[[Sequence[str], Sequence[str]], list[Row]]
"""Function from texts, and the second text of each pair or an empty list, to rows."""


def tokenizer_of(folder: Path, facts: ServedFacts) -> Tokenize:
    """Return the tokenizer in a folder.

    Raises:
        RuntimeError: a library is not installed; the message says which one.
    """
    raw = _with_tokenizers(folder, facts) if (folder / TOKENIZER).is_file() else _with_transformers(folder, facts)

    def tokenize(texts: Sequence[str], pairs: Sequence[str]) -> list[Row]:
        if facts.lower_case:
            texts, pairs = [text.lower() for text in texts], [text.lower() for text in pairs]
        return raw(texts, pairs)

    return tokenize


def _with_tokenizers(folder: Path, facts: ServedFacts) -> Tokenize:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise RuntimeError("texts need the library tokenizers in the server's Python: pip install tokenizers") from None
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if facts.truncated_to:
        tokenizer.enable_truncation(facts.truncated_to)

    def tokenize(texts: Sequence[str], pairs: Sequence[str]) -> list[Row]:
        inputs = list(zip(texts, pairs, strict=True)) if pairs else list(texts)
        return [Row.of(row.ids, row.type_ids) for row in tokenizer.encode_batch(inputs)]

    return tokenize


def _with_transformers(folder: Path, facts: ServedFacts) -> Tokenize:
    try:
        from backends.model.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(folder)
    except ImportError:
        raise RuntimeError(
            "this tokenizer has no tokenizer.json, so texts need transformers in the server's Python: "
            "pip install transformers"
        ) from None
    limit = {"truncation": True, "max_length": facts.truncated_to} if facts.truncated_to else {}

    def tokenize(texts: Sequence[str], pairs: Sequence[str]) -> list[Row]:
        encoded = tokenizer(list(texts), list(pairs) or None, return_token_type_ids=True, **limit)
        return list(map(Row.of, encoded["input_ids"], encoded["token_type_ids"]))

    return tokenize
