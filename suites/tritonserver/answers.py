"""Answers of a server, compared with those of the session in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.base import Array, Session, Shape
from suites.serving.request_texts import RequestTexts

LEAST_COSINE = {"fp32": 0.9999, "tf32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95, "fp8": 0.95}
"""Smallest cosine, by precision, between two answers to one text. The texts of a batch differ between two servers, and
so do the kernels; dynamic INT8 also has one scale for a whole batch."""


def session_answers(
    session: Session, texts: RequestTexts, longest: int, built: Sequence[Shape], per_token: bool
) -> dict[int, Array]:
    """Return the answer of the session to each text alone, by number of the text. Longer texts are left out.

    Args:
        built: the shapes that a batch is padded to; empty for none.
    """
    answers = {}
    for text in texts.fitting(longest):
        output = session.answer(texts.feeds(texts.rows([text]), texts.shape([text], built)))[0]
        answers[text] = np.array(output[: texts.lengths[text]] if per_token else output, np.float32)
    return answers


@dataclass
class AnswerCheck:
    """Comparison of many answers.

    Attributes:
        expected: answers by number of the text.
        least: smallest cosine of an answer that is right.
        compared, wrong: number of answers.
        least_cosine: smallest cosine so far.
    """

    expected: Mapping[int, Array]
    least: float
    compared: int = 0
    wrong: int = 0
    least_cosine: float | None = None

    def add(self, text: int, answer: Array) -> None:
        """Compare an answer."""
        self.compared += 1
        expected = self.expected[text]
        cosine = -1.0
        if answer.shape == expected.shape and np.isfinite(answer).all():
            scale = float(np.linalg.norm(answer) * np.linalg.norm(expected))
            # A single value, such as a score, has no direction: its relative error is compared.
            cosine = (
                float((answer * expected).sum()) / scale
                if scale and expected.size > 1
                else _agreement(answer, expected)
            )
        self.least_cosine = cosine if self.least_cosine is None else min(cosine, self.least_cosine)
        self.wrong += cosine < self.least


def _agreement(answer: Array, expected: Array) -> float:
    """Return 1 minus the error of an answer, relative to its size, or absolute below 1."""
    return 1.0 - float(np.abs(answer - expected).max()) / max(1.0, float(np.abs(expected).max()))
