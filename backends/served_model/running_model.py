"""A served model: rows of token ids in, answers out, through a session of its backend."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import Array, Feeds, Session, Shape, Unsupported
from backends.inputs.request_inputs import fitting_shape
from backends.model_output import EMBEDDING, LOGITS, SCORE
from backends.registry import load_backend
from backends.served_model.served_facts import ServedFacts
from backends.served_model.served_texts import Row

FILLER = 2
"""Tokens of a row that fills a batch up to a built shape."""

SMALLEST_ID = 1
"""Token id of the rows that warm a session up."""


class RunningModel:
    """An open session with the rules of its batches. One thread uses it."""

    def __init__(self, session: Session, facts: ServedFacts) -> None:
        self._session, self.facts = session, facts

    @classmethod
    def open(cls, folder: Path, device_index: int | None = None) -> RunningModel:
        """Open the model in a folder with served.json, and run it once in each built shape.

        Args:
            device_index: number of the GPU; None for that of served.json.
        """
        facts = ServedFacts.read(folder)
        artifact = replace(facts.artifact, path=folder / facts.artifact.path)
        spec = replace(facts.spec, cache=folder / facts.spec.cache)
        if device_index is not None and spec.device.kind == "cuda":
            spec = replace(spec, device=replace(spec.device, index=device_index))
        model = cls(load_backend(facts.backend).open(spec, artifact), facts)
        model._warm_up()
        return model

    def answers(self, rows: Sequence[Row]) -> list[Array | str]:
        """Return for each row its output, FP32 [features] or [tokens, features], or an error in one line.

        A row that the model cannot read, or with which the session fails, does not affect the other rows.
        """
        answers: list[Array | str] = [self._refusal(row) for row in rows]
        fitting = [number for number, answer in enumerate(answers) if not answer]
        for first in range(0, len(fitting), self.facts.largest):
            batch = fitting[first : first + self.facts.largest]
            for number, answer in zip(batch, self._run([rows[number] for number in batch]), strict=True):
                answers[number] = answer
        return answers

    def close(self) -> None:
        self._session.close()

    def _refusal(self, row: Row) -> str:
        """Return why the model cannot read a row; empty if it can."""
        count, longest, uncounted = len(row.ids), self.facts.longest, self.facts.uncounted
        if count > longest:
            return f"the request has {count} tokens; at most {longest} are allowed: shorten it"
        if uncounted in row.ids:
            return f"the request has token {uncounted}, padding, inside its text; remove it"
        return "" if count else "the request has no tokens"

    def _run(self, rows: Sequence[Row]) -> list[Array | str]:
        try:
            output = np.asarray(self._session.answer(self._feeds(rows)), np.float32)
        except Exception as error:  # Vendors' errors have no common type.
            if len(rows) > 1:
                return [answer for row in rows for answer in self._run([row])]
            return [" ".join(f"{type(error).__name__}: {error}".split())[:300]]
        if self.facts.spec.output.per_token:
            # The session may overwrite its output in the next step.
            return [output[place, : len(row.ids)].copy() for place, row in enumerate(rows)]
        return [output[place].copy() for place in range(len(rows))]

    def _feeds(self, rows: Sequence[Row]) -> Feeds:
        shape = Shape(len(rows), max(len(row.ids) for row in rows))
        if self.facts.pads_to_built:
            built = self.facts.spec.shapes
            shape = built[fitting_shape(shape, built)]
        arrays = {
            "input_ids": np.full((shape.batch, shape.sequence), self.facts.pad, np.int32),
            "attention_mask": np.zeros((shape.batch, shape.sequence), np.int32),
            "token_type_ids": np.zeros((shape.batch, shape.sequence), np.int32),
        }
        arrays["attention_mask"][len(rows) :, :FILLER] = 1
        for place, row in enumerate(rows):
            count = len(row.ids)
            arrays["input_ids"][place, :count] = row.ids
            arrays["attention_mask"][place, :count] = 1
            arrays["token_type_ids"][place, :count] = row.types
        return {name: arrays[name] for name in self.facts.names}

    def _warm_up(self) -> None:
        """Run each built shape once, so that compilation comes before the first request; capture CUDA graphs."""
        spec = self.facts.spec
        graphs = self.facts.pads_to_built and spec.cuda_graph and spec.device.kind == "cuda"
        for shape in spec.shapes:
            feeds = self._feeds([Row.of([SMALLEST_ID] * shape.sequence)] * shape.batch)
            self._session.load(feeds)
            self._session.step()
            self._session.wait()
            if graphs:
                with contextlib.suppress(Unsupported):
                    self._session.capture()


def named_outputs(facts: ServedFacts, answers: Sequence[Array]) -> dict[str, Array]:
    """Return the outputs of one request by name. Per-token outputs are padded with zeros to the longest row.

    embedding FP32 [rows, dimensions]; score FP32 [rows, 1]; logits FP32 [rows, labels] with label (text) and
    probability FP32, [rows, 1] each, of the best label; hidden FP32 [rows, tokens, features]; spans and logits of a
    token classifier FP32 [rows, tokens, labels].
    """
    kind = facts.spec.output.kind
    if facts.spec.output.per_token:
        padded = np.zeros((len(answers), max(map(len, answers)), answers[0].shape[-1]), np.float32)
        for place, answer in enumerate(answers):
            padded[place, : len(answer)] = answer
        return {kind: padded}
    stacked = np.stack(answers)
    if kind != LOGITS or not facts.labels:
        return {kind: stacked}
    best = stacked.argmax(-1)
    exponentials = np.exp(stacked - stacked.max(-1, keepdims=True))
    probabilities = (exponentials / exponentials.sum(-1, keepdims=True)).max(-1, keepdims=True)
    names = np.asarray([[facts.labels[place].encode()] for place in best], np.object_)
    return {LOGITS: stacked, "label": names, "probability": probabilities.astype(np.float32)}


def output_fields(facts: ServedFacts) -> list[tuple[str, str, int]]:
    """Return name, Triton's type and last axis (-1: not known) of each output of `named_outputs`."""
    kind = facts.spec.output.kind
    assert kind in (EMBEDDING, LOGITS, SCORE) or facts.spec.output.per_token, kind
    if kind == LOGITS and facts.labels and not facts.spec.output.per_token:
        return [(LOGITS, "TYPE_FP32", len(facts.labels)), ("label", "TYPE_STRING", 1), ("probability", "TYPE_FP32", 1)]
    return [(kind, "TYPE_FP32", 1 if kind == SCORE else -1)]
