"""Figures about the accuracy of FP8 in docs/guides/fp8.md and docs/findings.md, against the records of a CPU."""

from __future__ import annotations

from conftest import ROOT

from docs.generate.fp8 import KINDS, fp8_scores


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def test_no_set_of_layers_reaches_the_cosine() -> None:
    scores = fp8_scores("stsb")
    assert len(scores) == 8
    assert max(figures.cosine_min for figures in scores.values()) < 0.999
    best = scores[frozenset(KINDS) - {"*/attention/output/*"}]
    assert best.cosine_min == max(figures.cosine_min for figures in scores.values())
    assert f"smallest cosine on STS-B is {best.cosine_min:.5f}" in text_of("findings.md")


def test_the_layers_that_cost_most() -> None:
    scores = {left_out: f"{figures.cosine_min:.5f}" for left_out, figures in fp8_scores("stsb").items()}
    first = {"*/intermediate/*"}
    attention = scores[frozenset(first | {"*/attention/self/*"})]
    feed_forward = scores[frozenset(first | {"*/layer.?/output/*"})]
    guide = text_of("guides/fp8.md")
    assert f"rises from {scores[frozenset()]} to {attention}" in guide
    assert f"the whole feed-forward block in FP16 it is {feed_forward}" in guide
    assert max(abs(figures.difference) for figures in fp8_scores("stsb").values()) <= 0.0008
    assert "stays within 0.0008 of that of FP32" in guide


def test_banking77() -> None:
    (figures,) = fp8_scores("banking77").values()
    assert (
        f"the smallest cosine is {figures.cosine_min:.5f}, and the accuracy of {figures.value:.4f} is "
        f"{-figures.difference:.4f} below that of FP32"
    ) in text_of("guides/fp8.md")
