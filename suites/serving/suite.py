"""Which load does a session carry at which latency, with and without dynamic batching?"""

from __future__ import annotations

from dataclasses import dataclass

from suites.serving.batch_policy import BatchPolicy
from suites.serving.result import RESULT, observed
from suites.suite import Question, SuiteDescription


@dataclass(frozen=True)
class Bound:
    """Latency bound of the search for the highest load.

    Attributes:
        ms: latency in ms.
        percentile: of latencies, that must be within the bound.
        steps: most loads that are tried.
    """

    ms: float
    percentile: float
    steps: int


@dataclass(frozen=True)
class ServingQuestion(Question):
    """Loads and rules of batches.

    Attributes:
        arrivals: name of an Arrivals.
        loads: offered loads in requests per second; empty for shares of the highest throughput.
        clients: numbers of clients of a closed loop.
        burst: requests of each burst.
        trace: arrivals of a trace in ns, and the number of tokens of each request, 0 if it is not known.
        bounds: latency bounds whose highest load is searched.
        seed: of arrivals and texts.
        workers: number of sessions that run batches at the same time.
        shares: offered loads as shares of the highest throughput, if there are no `loads`.
        graph: whether batches replay CUDA graphs.
        pool: name of a Pool: whether the sessions of several workers are in threads or in processes.
        socket: path of the socket from which this process gets batches; empty in the process that has the queue.
    """

    arrivals: str
    policy: BatchPolicy
    loads: tuple[float, ...] = ()
    clients: tuple[int, ...] = ()
    burst: int = 1
    trace: tuple[tuple[int, int], ...] = ()
    bounds: tuple[Bound, ...] = ()
    seed: int = 0
    workers: int = 1
    shares: tuple[float, ...] = ()
    graph: bool = False
    pool: str = "threads"
    socket: str = ""

    @property
    def trace_lengths(self) -> list[int]:
        """The different numbers of tokens of the requests of the trace, sorted; empty if they are not known."""
        return sorted({tokens for _, tokens in self.trace if tokens})


SUITE = SuiteDescription(
    timed=True,
    question=ServingQuestion,
    result=RESULT,
    settings={"seconds": 5.0, "tolerance": 0.05},
    observed=observed,
)
