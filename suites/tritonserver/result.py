"""Result of suite=tritonserver: the curve of each path, in the process and through the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.json_part import Part, optional
from suites.serving.result import LoadPoint
from suites.suite import Result

IN_PROCESS, GRPC, HTTP, UNBATCHED = "in_process", "grpc", "http", "unbatched"
"""Paths: the session with the batcher of the suite, the server over gRPC and HTTP, and the server without its batcher.
"""


@dataclass(frozen=True)
class ServerTimes(Part):
    """Statistics of the server over one load. Times are means in ns.

    Attributes:
        answered: requests that it answered.
        batches: number of batches by their number of requests.
        queue, input, compute, output: of a request: wait for its batch, copies, and pass of its batch.
    """

    answered: int
    batches: Mapping[str, int]
    queue: float
    input: float
    compute: float
    output: float

    @property
    def mean_batch(self) -> float:
        """Mean number of requests of a batch; 0 without batches."""
        count = sum(self.batches.values())
        return sum(int(size) * number for size, number in self.batches.items()) / count if count else 0.0


@dataclass(frozen=True)
class Curve(Part):
    """Loads of one path.

    Attributes:
        path: IN_PROCESS, GRPC, HTTP or UNBATCHED.
        points: in the order of the measurement.
        server: statistics of the server for each point; empty in the process.
        compared: answers that were compared with those of the session in the process.
        wrong: compared answers that differ.
        least_cosine: smallest cosine of them; None if none was compared.
    """

    path: str
    points: tuple[LoadPoint, ...]
    server: tuple[ServerTimes, ...] = optional(())
    compared: int = optional(0)
    wrong: int = optional(0)
    least_cosine: float | None = optional(None)


@dataclass(frozen=True)
class TritonResult(Result):
    """All paths.

    Attributes:
        version: version of Triton's core.
        ready_s: seconds from the start of the server until it was ready; None for a server that ran already.
    """

    curves: tuple[Curve, ...]
    version: str
    ready_s: float | None = optional(None)

    def curve(self, path: str) -> Curve | None:
        """Return the curve of a path; None if it was not measured."""
        return next((curve for curve in self.curves if curve.path == path), None)


RESULT = TritonResult
