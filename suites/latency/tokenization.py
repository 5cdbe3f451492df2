"""Time of the tokenizer: from texts to arrays of token ids. Runs in the interpreter with torch, in the export stage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Artifact, Shape, versions_of
from backends.cache_files import locked
from backends.inputs.batches import InputSource
from backends.inputs.reference_outputs import PACKAGES
from backends.inputs.row_texts import batch_texts
from backends.model.tokenizer import fast_tokenizer, tokenizer_threads
from suites.measuring.clock import Effort, time_calls
from suites.measuring.machine import cpu

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def time_tokenization(
    origin: InputSource, shapes: Sequence[Shape], effort: Effort, builder_lock: Path | None = None
) -> Artifact | None:
    """Measure the tokenizer of a checkpoint on a batch of texts of each shape, once for all cells with these texts.

    The times are in the notes of the artifact, see TokenizationNotes in suites/records/artifacts.py. They belong to
    this host, so its identity is part of the key in the cache.

    Args:
        builder_lock: file of a lock. The measurement begins when the lock is free.

    Returns:
        None if the checkpoint has no fast tokenizer.
    """
    tokenizer = fast_tokenizer(origin.folder)
    if tokenizer is None:
        return None
    threads, threads_from = tokenizer_threads()

    def build(path: Path) -> Mapping[str, object]:
        with locked(builder_lock) if builder_lock else contextlib.nullcontext():
            pass
        samples = {
            str(shape): list(time_calls(tokenizing(tokenizer, texts, shape), effort).values)
            for shape, texts in batch_texts(origin, shapes).items()
        }
        notes = {"threads": threads, "threads_from": threads_from, "samples_ns": samples}
        path.write_text(json.dumps(notes), encoding="utf-8")
        return notes

    key = {
        **origin.key,
        "lengths": origin.lengths.settings(),
        "texts": list(origin.texts),
        "shapes": [str(shape) for shape in shapes],
        "threads": [threads, threads_from],
        "effort": asdict(effort),
        "host": cpu().description["uuid"],
    }
    return origin.cache.get("tokenization", key, "samples.json", build, versions_of(PACKAGES))


def tokenizing(tokenizer: Tokenizer, texts: Sequence[str], shape: Shape) -> Callable[[], Mapping[str, object]]:
    """Return a function that makes int32 arrays [batch, sequence] from the texts, by input name."""
    tokenizer.enable_truncation(shape.sequence)
    tokenizer.enable_padding(length=shape.sequence)

    def tokenize() -> Mapping[str, object]:
        encodings = tokenizer.encode_batch_fast(list(texts))
        return {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int32),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int32),
        }

    return tokenize
