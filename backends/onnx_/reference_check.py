"""Compare the project's FP32 encoder and its ONNX export with transformers, at many lengths in padded batches.

The project compares every path with its own encoder. A wrong mask in this encoder would therefore not show as a
difference. The eager attention of transformers is the independent reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Feeds, versions_of
from backends.cache import ArtifactCache
from backends.model.checkpoint import input_names, load_encoder, run_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import padding_id, token_types_of, vocabulary_of
from backends.model.heads import head_of
from backends.model_output import LAST_HIDDEN, Output
from backends.onnx_.compared_lengths import Lengths, lengths_to_compare

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Largest allowed absolute difference in FP32, for hidden states with a root mean square of at most 1."""

ROWS, BATCH_TOKENS = 8, 4096
"""Most sequences in a batch, and about the most tokens."""

KEPT_TOKENS = 1 << 16
"""Most tokens, padding included, whose hidden states stay in memory for the next check; 200 MB of BERT-base."""

LOGGER = logging.getLogger(__name__)

Run = Callable[[Feeds], Array]
"""Function from feeds [batch, sequence] to an output in FP32, see backends/model_output.py."""

_kept: dict[tuple[Path, str, tuple[tuple[int, ...], ...]], Sequence[Array]] = {}
"""Hidden states of the last check in this process, by folder, identity and compared lengths."""


def check_encoder(folder: Path, identity: str, longest: int, cache: ArtifactCache) -> Mapping[str, object]:
    """Compare the project's encoder with transformers. The result is cached.

    Args:
        identity: identity of the checkpoint in `folder`.
        longest: number of tokens of the longest sequence. Fewer are compared if it needs too much memory or time.

    Returns:
        `difference` (the largest), `lengths` (the number of compared lengths), `longest` (the longest of them), and
        `limit`, the reason why it is not the requested one.

    Raises:
        ArithmeticError: the encoder differs from transformers by more than TOLERANCE.
    """
    return _Check("encoder", folder, identity, longest).result({}, cache, lambda: _own(folder))


def check_export(
    folder: Path, identity: str, longest: int, cache: ArtifactCache, output: Output = LAST_HIDDEN
) -> Mapping[str, object]:
    """Compare the exported FP32 ONNX file with this output, run by onnxruntime on the CPU. See `check_encoder`."""
    from backends.onnx_.onnx_source import export_onnx

    onnx = export_onnx(folder, identity, cache, output)
    check = _Check("export", folder, identity, longest, output)
    return check.result({"onnx": onnx.sha256}, cache, lambda: _exported(onnx.path))


def compare_export(folder: Path, onnx: Path, longest: int, output: Output = LAST_HIDDEN) -> float:
    """Return the largest difference between an ONNX file and transformers. Raise ArithmeticError above TOLERANCE."""
    check = _Check("export", folder, "", longest, output)
    return check.compare(lambda: _exported(onnx), lengths_to_compare(folder, longest))


@dataclass(frozen=True)
class _Check:
    """Comparison of one part with transformers.

    Attributes:
        part: "encoder" or "export".
        folder, identity: folder and identity of the checkpoint.
        longest: number of tokens of the longest sequence.
        output: the output that is compared.
    """

    part: str
    folder: Path
    identity: str
    longest: int
    output: Output = LAST_HIDDEN

    def result(
        self, key: Mapping[str, object], cache: ArtifactCache, candidate: Callable[[], Run]
    ) -> Mapping[str, object]:
        """Compare, or return the result from the cache. `key` identifies the candidate in addition to the fields."""

        lengths = lengths_to_compare(self.folder, self.longest)
        compared = max(lengths.many + lengths.longer)
        limit = {"limit": lengths.limit} if compared < lengths.longest else {}

        def build(path: Path) -> Mapping[str, object]:
            if limit:
                LOGGER.warning(
                    "compared with transformers up to %d tokens, because attention of %d tokens needs more %s",
                    compared, lengths.longest, lengths.limit,
                )  # fmt: skip
            difference = self.compare(candidate, lengths)
            path.write_text(f"{difference}\n", encoding="utf-8")
            return {
                "difference": difference,
                "lengths": len(lengths.many + lengths.longer),
                "longest": compared,
                **limit,
            }

        versions = versions_of(("torch", "transformers", "numpy", "onnxruntime-gpu", "onnxruntime"))
        fields = {"part": self.part, "checkpoint": self.identity, "longest": self.longest, "form": 1}
        more = {"longer": lengths.longer} if lengths.longer or limit else {}
        key = {**fields, **more, **key, **self.output.for_cell()}
        return cache.get("reference-check", key, "difference.txt", build, versions).notes

    def compare(self, candidate: Callable[[], Run], lengths: Lengths) -> float:
        """Return the largest difference between `candidate` and transformers."""
        config, names = read_config(self.folder), input_names(self.folder)
        groups = [group for group in (lengths.many, lengths.longer) if group]
        batches = [batch for group in groups for batch in padded_batches(group, config, names)]
        outputs = _run_all(candidate(), batches)  # before the reference: its errors explain a faulty checkpoint better
        references = self._with_head(self._hidden_states(groups, batches), batches)
        worst, worst_length, size = 0.0, 0, 1.0
        for feeds, reference, output in zip(batches, references, outputs, strict=True):
            mask = feeds["attention_mask"].astype(bool)
            valid = mask[..., None] if self.output.per_token else np.ones((len(mask), 1), bool)
            if not np.isfinite(reference).all(where=valid):
                raise ArithmeticError(
                    "transformers itself gives NaN or Inf for this checkpoint; its weights or its config.json are "
                    "damaged"
                )
            size = max(size, float(np.sqrt(np.mean(reference**2, where=valid))))
            difference = np.where(valid, np.abs(reference - output), 0)
            by_row = difference.reshape(len(mask), -1).max(1)
            by_row = np.where(np.isfinite(by_row), by_row, np.inf)
            if by_row.max() > worst:
                worst, worst_length = float(by_row.max()), int(mask[by_row.argmax()].sum())
        if not worst <= TOLERANCE * size:
            name = "own FP32 encoder" if self.part == "encoder" else "exported ONNX file"
            raise ArithmeticError(
                f"the {name} differs from transformers by {worst:.2e} (at most {TOLERANCE * size:.0e}) at "
                f"{worst_length} of {groups[-1][-1]} tokens; its attention mask or an operation is wrong for this "
                "checkpoint"
            )
        return worst

    def _hidden_states(self, groups: Sequence[Sequence[int]], batches: Sequence[Feeds]) -> Sequence[Array]:
        """Return the last hidden states of transformers for `batches`, which follow from `groups`.

        The encoder and the export are compared at the same lengths, one after the other: transformers runs once.
        """
        size = sum(feeds["attention_mask"].size for feeds in batches)
        key = (self.folder, self.identity, tuple(map(tuple, groups)))
        if self.identity and key in _kept:
            return _kept[key]
        states = _run_all(_transformers(self.folder), batches)
        if self.identity and size <= KEPT_TOKENS:
            _kept.clear()
            _kept[key] = states
        return states

    def _with_head(self, states: Sequence[Array], batches: Sequence[Feeds]) -> Sequence[Array]:
        """Return the output for last hidden states."""
        head = head_of(self.folder, self.output)
        if head is None:
            return states
        import torch

        from backends.model.output_head import OutputHead

        layers = OutputHead(head)
        with torch.inference_mode():
            return [
                np.asarray(layers(torch.from_numpy(hidden), torch.from_numpy(feeds["attention_mask"]).long()).numpy())
                for hidden, feeds in zip(states, batches, strict=True)
            ]


def padded_batches(lengths: Sequence[int], config: Mapping[str, object], names: Sequence[str]) -> Iterator[Feeds]:
    """Yield batches of random tokens. Each has short and long sequences and is padded to its longest one."""
    generator = np.random.default_rng(0)
    pad, types = padding_id(config), token_types_of(config)
    ordinary = np.setdiff1d(np.arange(min(vocabulary_of(config), 20_000)), [pad])
    count = -(-len(lengths) // max(2, min(ROWS, BATCH_TOKENS // max(lengths))))
    for start in range(count):
        rows = lengths[start::count]
        ids = generator.choice(ordinary, (len(rows), max(rows))).astype(np.int32)
        mask = (np.arange(max(rows)) < np.asarray(rows)[:, None]).astype(np.int32)
        token_types = (generator.integers(0, types, ids.shape) if types else np.zeros_like(ids)).astype(np.int32)
        arrays = {"input_ids": np.where(mask > 0, ids, pad).astype(np.int32), "attention_mask": mask,
                  "token_type_ids": token_types * mask}  # fmt: skip
        yield {name: arrays[name] for name in names}


def _run_all(run: Run, batches: Sequence[Feeds]) -> list[Array]:
    return [run(feeds) for feeds in batches]


def _transformers(folder: Path) -> Run:
    """Load AutoModel of transformers with its own eager attention, as users call it."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True, trust_remote_code=False,
        use_safetensors=True,
    ).eval()  # fmt: skip

    def run(feeds: Feeds) -> Array:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(array).long() for name, array in feeds.items()}
            return np.asarray(model(**inputs).last_hidden_state.numpy())

    return run


def _own(folder: Path) -> Run:
    import torch

    encoder: torch.nn.Module = load_encoder(folder)

    def run(feeds: Feeds) -> Array:
        with torch.inference_mode():
            return np.asarray(run_encoder(encoder, feeds).numpy())

    return run


def _exported(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(feeds: Feeds) -> Array:
        (hidden,) = session.run(None, dict(feeds))
        return np.asarray(hidden)

    return run
