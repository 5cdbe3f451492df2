"""Inputs of suite=serving: the texts of requests, and one batch of them with its FP32 reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from backends.base import Array, Artifact, Feeds, Shape, Source, Unavailable, versions_of
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, Tokens, draw_lengths, reference_rows
from backends.inputs.lengths import Lengths
from backends.inputs.request_tokenizer import RequestTokenizer, stored_tokenizer
from backends.inputs.row_texts import RowTexts
from backends.model.checkpoint import input_names
from backends.model.tokenizer import check_counted, check_ids, fast_tokenizer
from backends.null_.null import null_hidden
from suites.running.job import ExportJob
from suites.running.prepared import Prepared
from suites.serving.request_texts import RequestTexts
from suites.serving.suite import ServingQuestion

TEXTS = 512
"""Number of texts, from which requests are drawn."""

CHECKED = 8
"""Most requests of the batch that is compared with FP32."""

LONGEST = 1 << 16
"""Most tokens of a drawn length. A request that is longer than the engine allows is not truncated; it fails."""

FORM = 1
"""Version of the .npz, for the cache."""

NULL_TOKENS = Tokens("random", (tuple(range(10, 100)),), (2,), (3,), 0)


@dataclass(frozen=True)
class TextSource:
    """Sources of requests: lengths, tokens, the inputs of the model, and the model in FP32.

    Attributes:
        origin: settings of the inputs; None without a model.
    """

    lengths: Lengths
    tokens: Tokens
    names: Sequence[str]
    seed: int
    reference: Callable[[Feeds], Array]
    origin: InputSource | None = None

    def ids(self, lengths: Sequence[int]) -> RequestTexts:
        """Return requests that are token ids, of these numbers of tokens."""
        ids = [
            self.tokens.feeds([length], length, ["input_ids"], [row])["input_ids"][0]
            for row, length in enumerate(lengths)
        ]
        return RequestTexts.of(ids, self.tokens.pad, self.names)

    def texts(self, lengths: Sequence[int]) -> RequestTexts:
        """Return requests that are texts, of about these numbers of tokens, with the ids that the tokenizer gives.

        Raises:
            Unavailable: the checkpoint has no fast tokenizer, or a token has no row in the model's embedding or no
                position of its own.
        """
        tokenizer = fast_tokenizer(self.origin.folder) if self.origin and self.tokens.kind == "text" else None
        if tokenizer is None or self.origin is None:
            raise Unavailable("serving.input=text needs the texts and the fast tokenizer of a checkpoint; use ids")
        rows, stored = RowTexts.of(self.origin), stored_tokenizer(tokenizer)
        strings = [rows.text(max(0, length - self.tokens.around), row) for row, length in enumerate(lengths)]
        ids = [row[0] for row in RequestTokenizer(stored).ids(strings)]
        check_ids(np.unique(np.concatenate(ids)).tolist(), self.tokens.beyond, self.tokens.vocabulary)
        check_counted(ids, self.tokens.uncounted)
        of_ids = RequestTexts.of(ids, self.tokens.pad, self.names)
        return replace(of_ids, strings=np.asarray(strings), tokenizer=stored)


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    question = cast(ServingQuestion, job.question)

    def build(path: Path) -> Mapping[str, object]:
        tokens, names = origin.tokens(), input_names(origin.folder)
        made = TextSource(origin.lengths, tokens, names, origin.seed, origin.reference(), origin)
        return _write(path, made, question, job.spec.shapes)

    return Prepared(source, origin.cached("requests.npz", _key(question, job.spec.shapes), build))


def prepare_null(job: ExportJob) -> Artifact:
    question = cast(ServingQuestion, job.question)

    def build(path: Path) -> Mapping[str, object]:
        names = ("input_ids", "attention_mask")
        made = TextSource(job.lengths, NULL_TOKENS, names, job.seed, lambda feeds: null_hidden(feeds["input_ids"]))
        return _write(path, made, question, job.spec.shapes)

    key = {"null": job.lengths.settings(), "seed": job.seed, **_key(question, job.spec.shapes)}
    return ArtifactCache(job.spec.cache).get("inputs", key, "requests.npz", build, versions_of(("numpy",)))


def _key(question: ServingQuestion, shapes: Sequence[Shape]) -> dict[str, object]:
    policy = question.policy
    return {
        "shapes": [str(shape) for shape in shapes],
        "batch": [policy.most_requests, policy.longest, policy.pads_to_built],
        **({"input": "text"} if policy.tokenizes else {}),
        "requests": [TEXTS, CHECKED, FORM, question.trace_lengths],
    }


def _write(path: Path, source: TextSource, question: ServingQuestion, shapes: Sequence[Shape]) -> Mapping[str, object]:
    """Write an .npz with the arrays of `RequestTexts`, and under "check/" a batch with `reference` and `rows`.

    The lengths are those of the trace, if it has lengths, and otherwise drawn.

    Raises:
        Unavailable: all requests are longer than the largest sequence.
    """
    policy = question.policy
    longest = policy.longest if source.lengths.distribution in ("full", "uniform") else LONGEST
    drawn, _ = draw_lengths(source.lengths, Shape(TEXTS, longest), source.tokens, source.seed)
    lengths = question.trace_lengths or drawn
    texts = source.texts(lengths) if policy.tokenizes else source.ids(lengths)
    fitting = texts.fitting(policy.longest)[: min(CHECKED, policy.most_requests)]
    if not fitting:
        raise Unavailable(
            f"all requests are longer than the longest sequence, {policy.longest} tokens; give a longer sequence"
        )
    shape = texts.shape(fitting, shapes if policy.pads_to_built else ())
    feeds, rows = texts.feeds(texts.rows(fitting), shape), reference_rows(len(fitting))
    reference = source.reference({name: array[rows] for name, array in feeds.items()})
    check = {**feeds, "reference": reference, "rows": rows}
    arrays = {**texts.arrays(), **{f"check/{name}": array for name, array in check.items()}}
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
    mean = float(np.mean([min(length, policy.longest) for length in lengths]))
    by_shape = {str(built): {"tokens": round(built.batch * min(mean, built.sequence)), "cut": 0} for built in shapes}
    return {"tokens": source.tokens.kind, "shapes": by_shape}
