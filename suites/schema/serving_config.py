"""Keys of suite=serving."""

from __future__ import annotations

from dataclasses import dataclass

from backends.config_key import key
from backends.value_checks import at_least, between, positive
from suites.schema.enums import Arrivals, PadTo, Pool, RequestInput


@dataclass
class ServingConfig:
    """Keys of suite=serving; see suites/serving/measure.py."""

    arrivals: Arrivals = key(
        Arrivals.poisson,
        "Arrivals of requests: at random times, in bursts at random times, at the times in serving.trace, or from "
        "clients that each send a request after the answer to the last one.",
    )
    loads: list[float] = key([], "Offered loads in requests/s. Empty: serving.shares.")
    shares: list[float] = key(
        [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2],
        "Offered loads as shares of the highest throughput, which is measured first. Empty: only the search.",
    )
    clients: list[int] = key([1, 4, 16, 64], "Numbers of clients of serving.arrivals=closed, from 1 to 256.")
    burst: int = key(8, "Requests of each burst of serving.arrivals=bursts.")
    trace: str = key(
        "", "File of serving.arrivals=trace: per line the seconds of an arrival and, if known, its number of tokens."
    )
    most_requests: int = key(
        0, "Most requests of a batch. 1 serves one request at a time. 0: the largest value of batch."
    )
    most_tokens: int = key(0, "Most tokens of a batch, padding included. 0 sets no limit.")
    wait_ms: float = key(0.0, "Longest time that a request waits for others before an incomplete batch starts.")
    group_by_length: bool = key(
        False, "Whether a batch has requests of similar lengths, the oldest request among them, to have little padding."
    )
    workers: int = key(1, "Sessions that run batches at the same time, from 1 to 8.")
    pool: Pool = key(Pool.threads, "Whether each of several workers is a thread or a process.")
    input: RequestInput = key(
        RequestInput.ids, "Requests are token ids, or texts that the server tokenizes with the model's fast tokenizer."
    )
    queue: int = key(1000, "Most requests that wait. Requests that find a full queue are rejected and counted.")
    pad_to: PadTo = key(
        PadTo.longest,
        "Shape of a batch: padded to its longest request, or the smallest shape of batch and sequence that fits, for "
        "engines with fixed shapes.",
    )
    graph: bool = key(
        False, "Replay a CUDA graph for each batch whose shape was captured before the measurement, instead of a step."
    )
    bound_ms: list[float] = key(
        [],
        "Latency bounds. For each, the highest load with serving.percentile of latencies within it is searched. Empty: "
        "no search.",
    )
    percentile: float = key(99.0, "Percentile of latencies that must be within serving.bound_ms.")
    steps: int = key(8, "Most loads that the search tries for each bound.")

    def __post_init__(self) -> None:
        for load in self.loads:
            positive("serving.loads", load)
        for count in self.clients:
            between("serving.clients", count, 1, 256)
        for name, least in (("burst", 1), ("most_requests", 0), ("most_tokens", 0), ("queue", 1), ("steps", 1)):
            at_least(f"serving.{name}", getattr(self, name), least)
        between("serving.workers", self.workers, 1, 8)
        at_least("serving.wait_ms", self.wait_ms, 0)
        for share in self.shares:
            between("serving.shares", share, 0.01, 2)
        for bound in self.bound_ms:
            positive("serving.bound_ms", bound)
        between("serving.percentile", self.percentile, 50, 99.9)
