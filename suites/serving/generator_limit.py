"""Measure the highest rate at which the load generator keeps its schedule on this machine.

The server answers each request at once, so the time is that of the generator, the queue and the clock.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backends.base import Array, Feeds, Session
from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.measuring.clock import HostClock
from suites.schema.refusals import between
from suites.serving.arrivals import OpenLoop, poisson
from suites.serving.batch_policy import BatchPolicy
from suites.serving.load_point import times_of
from suites.serving.request_texts import RequestTexts
from suites.serving.serving_loop import Server
from suites.serving.workers import BatchRunner, OwnThread
from suites.tables.markdown import digits

RATES = (1_000.0, 5_000.0, 10_000.0, 20_000.0, 40_000.0, 80_000.0)
"""Requests per second that are tried."""

TOLERANCE = 0.01
"""Largest relative error of a schedule that counts as kept."""

SHORTEST = 1.0
"""Shortest schedule in seconds: an operating system may stop a process for 10 ms, which is TOLERANCE of it."""


@dataclass(frozen=True)
class KeptSchedule:
    """A schedule that was served.

    Attributes:
        rate: scheduled requests per second.
        error: difference of the served from the scheduled duration, as a share of the scheduled one.
        late_p50, late_p99: ns from the scheduled arrival of a request to the start of its batch.
    """

    rate: float
    error: float
    late_p50: float
    late_p99: float

    @property
    def kept(self) -> bool:
        return abs(self.error) <= TOLERANCE


def limit_of(server: Server, rates: Sequence[float], seconds: float) -> list[KeptSchedule]:
    """Serve a schedule of each rate in requests per second."""
    schedules = []
    for rate in rates:
        times = poisson(rate, seconds, [0])
        served = server.serve(OpenLoop(times, np.zeros(len(times), np.int64)))
        scheduled = int(times[-1])
        late = times_of(served.queue_times)
        schedules.append(KeptSchedule(rate, (served.end - served.start) / scheduled - 1, late.p50, late.p99))
    return schedules


class NoWork(Session):
    """Session that answers at once."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        pass

    def step(self) -> None:
        pass

    def wait(self) -> None:
        pass

    def fetch(self) -> Array:
        return np.zeros((1, 1), np.float32)


def report(seconds: float) -> str:
    """Return a table of the schedules on this machine."""
    texts, clock = RequestTexts.of([[1, 2, 3]], 0, ("input_ids", "attention_mask")), HostClock()
    policy = BatchPolicy(queue=1 << 30)
    server = Server(OwnThread(BatchRunner(NoWork(), clock, texts, policy)), clock, texts, policy)
    lines = [f"{'requests/s':>10}  {'error':>7}  {'late p50 us':>11}  {'late p99 us':>11}  within {TOLERANCE:.0%}"]
    for schedule in limit_of(server, RATES, seconds):
        late = [digits(max(value, 1) / 1e3) for value in (schedule.late_p50, schedule.late_p99)]
        kept = "yes" if schedule.kept else "no"
        lines.append(f"{schedule.rate:>10,.0f}  {schedule.error:>7.2%}  {late[0]:>11}  {late[1]:>11}  {kept}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the table. Return 0, or 2 if the command was refused."""

    def run() -> int:
        options = _parser().parse_args(arguments)
        between("--seconds", options.seconds, SHORTEST, 10)
        print(report(options.seconds))
        return 0

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "serving.generator_limit",
        "Measure at which rates the load generator of suite=serving keeps its schedule on this machine.\n\n"
        "The server answers each request at once. The duration of a schedule may differ by 1%.\n"
        "Output: for each rate the error of the duration and the lateness of the requests.",
        ("", "--seconds 5"),
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="length of each schedule, from 1 to 10 s; default 2"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
