"""Distribution of the number of tokens of sequences. Needs the standard library alone: jobs carry it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lengths:
    """A distribution with its parameters; fields of other distributions are None or empty.

    Attributes:
        distribution: "full", "uniform", "texts", "file", "histogram" or "lognormal".
        tokens: kind of token ids: "auto", "text" or "random".
        low: fewest tokens of "uniform" and "lognormal".
        mean, sigma: of "lognormal": the mean, and the standard deviation of the logarithm.
        values: number of tokens of "histogram" and "file".
        counts: of "histogram": how often each of `values` occurs.
        passes: number of passes that run a batch, sorted by length.
        multiple: with several passes, each is padded to a multiple of this number of tokens.
    """

    distribution: str = "full"
    tokens: str = "auto"
    low: int = 8
    mean: float | None = None
    sigma: float | None = None
    values: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    passes: int = 1
    multiple: int = 1

    def settings(self) -> dict[str, object]:
        """Return the parameters that have an effect, for cells and cache keys."""
        settings: dict[str, object] = {"distribution": self.distribution, "tokens": self.tokens, "low": self.low}
        if self.passes > 1:
            settings |= {"passes": self.passes, "multiple": self.multiple}
        if self.distribution == "lognormal":
            settings |= {"mean": self.mean, "sigma": self.sigma}
        if self.distribution in ("histogram", "file"):
            settings["values"] = list(self.values)
        if self.distribution == "histogram":
            settings["counts"] = list(self.counts)
        return settings
