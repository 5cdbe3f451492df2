"""Keys that belong to one suite, and the lengths of sequences."""

from __future__ import annotations

from dataclasses import dataclass

from backends.config_key import key
from backends.quantization_options import TokenKind
from backends.value_checks import Refused, at_least, between, positive
from suites.schema.enums import Distribution, LimitMethod


@dataclass
class SuiteConfig:
    """The question and the time given to it. A record keeps these keys. A cell keeps the name of the suite alone."""

    name: str = key("latency", "The question. Choose it with suite=NAME, which also loads the suite's defaults.")
    warm_up_s: float = key(3.0, "Longest warm-up in seconds. The warm-up ends earlier when times are steady.")
    seconds: float = key(1.0, "Measuring time in seconds for each phase, such as plain steps or graph replays.")
    min_samples: int = key(30, "Fewest samples of a phase. A slow phase gets up to ten times suite.seconds for them.")
    max_samples: int = key(1000, "Most samples of a phase.")
    tolerance: float = key(
        0.02, "Times count as steady when the medians of two halves of a window differ by at most this share."
    )
    pairs_s: float = key(
        5.0, "suite=switching: seconds for all ordered pairs of shapes, with CUDA graphs and without each."
    )
    replay_s: float = key(5.0, "suite=switching: seconds for each trace, with CUDA graphs and without each.")
    starts: int = key(5, "suite=switching: extra processes that measure the first request of each shape.")
    minimum_cosine: float = key(
        0.5, "A cell fails when the smallest cosine between its outputs and those of FP32 is below this value."
    )

    def __post_init__(self) -> None:
        for name in ("warm_up_s", "seconds", "tolerance", "pairs_s", "replay_s"):
            positive(f"suite.{name}", getattr(self, name))
        at_least("suite.min_samples", self.min_samples, 2)
        at_least("suite.max_samples", self.max_samples, 2)
        at_least("suite.starts", self.starts, 0)
        between("suite.minimum_cosine", self.minimum_cosine, -1, 1)


@dataclass
class SearchConfig:
    """When suites/search.py stops."""

    cosine: float = key(
        0.0, "Smallest cosine to FP32 that passes. 0 means 0.95 for INT8 and FP8, and 0.999 for FP16 and BF16."
    )
    steps: int = key(0, "Most steps of the search. 0 sets no limit.")
    seconds: float = key(0.0, "The search starts no step after this many seconds. 0 sets no limit.")

    def __post_init__(self) -> None:
        between("search.cosine", self.cosine, 0, 1)
        at_least("search.steps", self.steps, 0)
        at_least("search.seconds", self.seconds, 0)


@dataclass
class LayersConfig:
    """Keys of suite=layers."""

    chunk: int = key(16, "Number of layers whose outputs one engine returns.")
    threshold: float = key(0.05, "The table names the first layer with a larger relative error than this.")

    def __post_init__(self) -> None:
        at_least("layers.chunk", self.chunk, 1)
        positive("layers.threshold", self.threshold)


@dataclass
class CeilingsConfig:
    """Keys of suite=ceilings."""

    sizes: list[int] = key(
        [],
        "Rows of the square matrices that are multiplied, multiples of 16. Empty: 4096, 8192 and 16384 on a GPU, 1024 "
        "and 2048 on a CPU.",
    )
    megabytes: int = key(512, "Size of each array that is copied, in MiB. It must be larger than all caches.")

    def __post_init__(self) -> None:
        at_least("ceilings.megabytes", self.megabytes, 1)
        for size in self.sizes:
            if size < 16 or size % 16:
                raise Refused(f"ceilings.sizes={size} is not a multiple of 16, which INT8 and FP8 products need")


@dataclass
class AlignmentConfig:
    """Keys of suite=alignment; see suites/alignment/request.py."""

    sequence_range: int = key(
        8, "Sequence lengths on each side of each value of sequence that are measured. 0: no sequence lengths."
    )
    batch_range: int = key(4, "Batch sizes on each side of each value of batch that are measured. 0: no batch sizes.")
    multiples: list[int] = key(
        [8, 16, 32, 64],
        "Sizes are padded up to multiples of each of these numbers, but not beyond twice the largest size.",
    )
    model_sizes: list[str] = key(
        ["vocab_size", "intermediate_size", "hidden_size"],
        "Sizes of the model that are padded, one at a time, if they are no multiple. Each needs an export and a build.",
    )
    model_multiples: list[int] = key([8, 64], "alignment.model_sizes are padded to multiples of each of these numbers.")

    def __post_init__(self) -> None:
        between("alignment.sequence_range", self.sequence_range, 0, 64)
        between("alignment.batch_range", self.batch_range, 0, 64)
        if not self.multiples:
            raise Refused("alignment.multiples=[] is empty; give at least one number, e.g. alignment.multiples=[8]")
        for name, values in (("multiples", self.multiples), ("model_multiples", self.model_multiples)):
            for multiple in values:
                between(f"alignment.{name}", multiple, 2, 512)


FEWEST_REQUESTS = 20
"""Fewest requests of a phase with loads."""


@dataclass
class LimitsConfig:
    """Keys of suite=limits; see suites/limits/measure.py."""

    shares: list[float] = key(
        [0.1, 0.25, 0.5, 1.0], "Shares of the SMs of the GPU at which a step is measured, from 0.01 to 1."
    )
    method: LimitMethod = key(
        LimitMethod.green,
        "green: CUDA green contexts, which give each session its own SMs. mps: a process per share with "
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE, under an MPS daemon that the suite starts.",
    )
    sharing: bool = key(
        False,
        "Also measure two clients, at the smallest and the largest shape: alone and together, without a limit and with "
        "half of the SMs each.",
    )
    builds: bool = key(
        False,
        "Also build an engine under each limit below 1, and measure it at its share beside the engine built on all "
        "SMs.",
    )
    processes: bool = key(
        False,
        "Also measure two processes, one with single requests of the smallest shape and one with steps of the largest "
        "shape back to back: alone, by time slices, under MPS, and as two threads with green contexts.",
    )
    process_shares: list[float] = key(
        [0.25, 0.5], "limits.processes: shares of the SMs of the first process; the second one gets the rest."
    )
    rate: float = key(
        100.0,
        "limits.processes: requests per second, which arrive at random times. 0: each one follows the last answer.",
    )
    load_s: float = key(3.0, "limits.processes: seconds of each phase.")

    def __post_init__(self) -> None:
        if not self.shares:
            raise Refused("limits.shares=[] is empty; give at least one share, e.g. limits.shares=[0.5,1]")
        for share in self.shares:
            between("limits.shares", share, 0.01, 1)
        for share in self.process_shares:
            between("limits.process_shares", share, 0.01, 0.99)
        at_least("limits.rate", self.rate, 0)
        positive("limits.load_s", self.load_s)
        if self.rate and self.rate * self.load_s < FEWEST_REQUESTS:
            raise Refused(
                f"limits.rate={self.rate:g} gives fewer than {FEWEST_REQUESTS} requests in limits.load_s="
                f"{self.load_s:g} s; raise one of them"
            )


@dataclass
class BuildingConfig:
    """Keys of suite=building; see suites/building/request.py."""

    options: list[str] = key(
        [],
        "Build options whose values are tried, such as optimization_level. Empty: all that the backend names. [none]: "
        "no option.",
    )
    profiles: list[int] = key([1, 2, 4], "Numbers of profiles that are tried, each with one shape per profile.")
    repeats: int = key(3, "Builds with the same options, without timings and with the timings of the first build.")

    def __post_init__(self) -> None:
        at_least("building.repeats", self.repeats, 1)
        for count in self.profiles:
            between("building.profiles", count, 1, 8)


@dataclass
class SwitchingConfig:
    """Keys of suite=switching; see suites/switching/measure.py."""

    repeats: int = key(20, "Visits of each ordered pair of shapes, as far as suite.pairs_s allows.")
    requests: int = key(
        500,
        "Requests of each trace, as far as suite.replay_s allows. A trace gets more requests if it would otherwise "
        "miss a shape or change its shape less than a hundred times. 0 replays no trace.",
    )
    switch: list[float] = key(
        [0.0, 0.01, 0.1, 0.5, 1.0],
        "Probabilities that a request has another shape than the request before it. Each gives one trace.",
    )
    trace: str = key("", "File with a trace of your own: a batch size and a sequence length per line, such as 8 128.")
    pad_to: list[list[int]] = key(
        [], "Shapes [batch,sequence] that requests are padded up to. Empty: each request runs at its own shape."
    )

    def __post_init__(self) -> None:
        at_least("switching.requests", self.requests, 0)
        at_least("switching.repeats", self.repeats, 1)


@dataclass
class LengthsConfig:
    """Number of tokens of each sequence, special tokens included; see backends/inputs/batches.py."""

    name: str = key("full", "Name of the distribution in tables. Choose it with lengths=NAME.")
    distribution: Distribution = key(Distribution.full, "Kind of distribution. lengths=NAME sets it.")
    tokens: TokenKind = key(
        TokenKind.auto,
        "Token ids of the inputs: the task's text or random ids. auto uses text if there is a tokenizer.",
    )
    low: int = key(8, "Shortest length of lengths=uniform and lengths=squad_like.")
    mean: float = key(177.0, "Mean length of lengths=squad_like.")
    sigma: float = key(0.45, "Standard deviation of the logarithm of the lengths of lengths=squad_like.")
    values: list[int] = key([], "Lengths of a histogram.")
    counts: list[int] = key([], "How often each length of lengths.values occurs.")
    path: str = key("", "File of lengths=file: one length per line.")
    passes: int = key(
        1, "Sort each batch by length and run it in this many passes. Each pass is padded to its own longest sequence."
    )
    multiple: int = key(16, "With lengths.passes: round the length of each pass up to a multiple of this many tokens.")

    def __post_init__(self) -> None:
        at_least("lengths.low", self.low, 2)
        positive("lengths.mean", self.mean)
        positive("lengths.sigma", self.sigma)
        at_least("lengths.passes", self.passes, 1)
        at_least("lengths.multiple", self.multiple, 1)
