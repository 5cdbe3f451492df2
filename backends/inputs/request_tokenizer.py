"""The tokenizer of a server: texts of requests to token ids, with the library `tokenizers` alone.

The export stage reads the tokenizer with transformers. It is stored with the inputs, so that a worker needs neither
transformers nor the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def stored_tokenizer(tokenizer: Tokenizer) -> Array:
    """Return a tokenizer as an array of bytes, uint8 [size]. It neither cuts nor pads."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.frombuffer(tokenizer.to_str().encode(), np.uint8)


class RequestTokenizer:
    """A stored tokenizer.

    Args:
        stored: see `stored_tokenizer`.

    Raises:
        Unavailable: this interpreter does not have the library.
    """

    def __init__(self, stored: Array) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise Unavailable(
                "serving.input=text needs tokenizers in the interpreter of the backend: pip install tokenizers"
            ) from None
        self._tokenizer = Tokenizer.from_str(stored.tobytes().decode())

    def ids(self, texts: Sequence[str]) -> list[Array]:
        """Return the ids of each text, int32 [1, tokens], special tokens included."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [np.asarray([encoding.ids], np.int32) for encoding in encodings]
