"""Measure the rates of false and of missed verdicts on committed noise: `python -m suites.comparing.verdict_rates`.

The noise is that of the committed A/A studies: medians of several fresh processes of one cell on one device. A
simulated process draws one of these medians and adds a normal deviate (smoothed bootstrap, Silverman 1986, section
6.4.1), scaled to the variance of the study. A planted slowdown multiplies all times of side B. The command prints:

- false verdicts among comparisons of equal sides, by path and number of processes;
- the share of planted slowdowns that were found;
- the number of processes that each path needs to find the slowdown.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.comparing.shift import POWER, Floats, log_shifts
from suites.schema.refusals import at_least, between
from suites.statistics.noise import Study, committed_studies
from suites.tables.markdown import markdown

COMPARISONS, SLOWDOWN = 200, 0.03

PROCESSES = (3, 5, 8, 15)
"""Numbers of processes of each side in the tables of rates."""

SEARCHED = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200, 400, 800, 1600)
"""Numbers of processes that are tried until a slowdown is found."""

ROWS = (1, 12)
"""Numbers of rows of a command. A cell of six shapes with and without CUDA graphs has 12."""

LARGEST_BLOCK = 2_000_000
"""Most simulated processes at a time, to bound the memory."""


@dataclass(frozen=True)
class Rates:
    """Shares of comparisons with a verdict, by cause.

    Attributes:
        false: share of comparisons of equal sides that have a verdict.
        found: share of comparisons with a planted slowdown that have the verdict `slower`.
    """

    false: float
    found: float


def kinds_of_path(studies: Sequence[Study]) -> dict[str, list[Study]]:
    """Return the studies of steps of one cell each, by kind of path: processes of equal code on one device."""
    kinds: dict[str, list[Study]] = {"GPU, CUDA graph": [], "GPU, no graph": [], "CPU": []}
    for study in studies:
        if len(study.records) == 1 and not study.path.request:
            device = study.path.device
            name = "CPU" if device == "cpu" else "GPU, CUDA graph" if study.path.cuda_graph else "GPU, no graph"
            kinds[name].append(study)
    return {name: found for name, found in kinds.items() if found}


def simulated_medians(study: Study, shape: tuple[int, ...], generator: np.random.Generator) -> Floats:
    """Return logarithms of the medians of simulated processes, with mean 0 and the variance of the study."""
    logs = np.log(np.asarray(study.medians_ms, dtype=np.float64))
    spread = float(logs.std(ddof=1))
    quartiles = np.percentile(logs, [25, 75])
    bandwidth = 0.9 * min(spread, float(quartiles[1] - quartiles[0]) / 1.34) * len(logs) ** -0.2
    drawn = generator.choice(logs - logs.mean(), shape) + bandwidth * generator.normal(size=shape)
    return np.asarray(drawn * spread / np.hypot(logs.std(), bandwidth))


def rates(studies: Sequence[Study], processes: int, comparisons: int, rows: int = 1, slowdown: float = SLOWDOWN,
          ) -> Rates:  # fmt: skip
    """Simulate commands of `rows` rows. The studies take turns, and all rows of a command are independent.

    Args:
        processes: number of processes of each side.
        comparisons: number of simulated commands with equal sides, and of rows with a planted slowdown.
        slowdown: planted slowdown, as a share.

    Returns:
        The share of commands with a false verdict in any row, and the share of found slowdowns in a row.
    """
    generator = np.random.default_rng([processes, rows, comparisons])
    each = -(-comparisons // len(studies))
    false, found = [], []
    for study in studies:
        a, b = (simulated_medians(study, (each, rows, processes), generator) for _ in range(2))
        difference, half_width, _ = log_shifts(a, b, rows)
        false.append((np.abs(difference) > half_width).any(axis=1))
        found.append(difference[:, 0] + np.log1p(slowdown) > half_width[:, 0])
    # Interleaved, so that each study has a part in the first `comparisons`.
    return Rates(*(float(np.stack(flags, axis=1).ravel()[:comparisons].mean()) for flags in (false, found)))


def processes_needed(study: Study, slowdown: float, comparisons: int) -> int | None:
    """Return the smallest number in `SEARCHED` that finds a slowdown with a probability of `POWER`; None if none."""
    for processes in SEARCHED:
        at_once = max(50, min(comparisons, LARGEST_BLOCK // processes))
        if rates([study], processes, at_once, slowdown=slowdown).found >= POWER:
            return processes
    return None


def false_in_splits(studies: Sequence[Study]) -> tuple[int, int]:
    """Compare all halves of the measured processes of each study, without a simulation.

    Returns:
        The number of splits with a verdict, and the number of splits. Splits of one study are not independent.
    """
    false = total = 0
    for study in studies:
        logs = np.log(np.asarray(study.medians_ms, dtype=np.float64))
        half = len(logs) // 2
        for chosen in combinations(range(2 * half), half):
            if half < 3 or 0 not in chosen:
                continue
            others = [index for index in range(2 * half) if index not in chosen]
            difference, half_width, _ = log_shifts(logs[list(chosen)], logs[others])
            false, total = false + int(abs(float(difference)) > float(half_width)), total + 1
    return false, total


def report(comparisons: int, slowdown: float) -> str:
    """Return the rates as text with tables."""
    kinds = kinds_of_path(committed_studies())
    lines = [f"Share of {comparisons} commands with equal sides that have a false verdict in any row, and share of"]
    lines += [f"{comparisons} rows with a planted slowdown of {slowdown:.3g} that were found:", ""]
    lines += [_rates_table(kinds, comparisons, slowdown), ""]
    lines += [
        f"Processes of each side that find a slowdown of {slowdown:.3g} in {POWER:.0%} of {comparisons} rows:",
        "",
    ]
    lines += [_needed_table(kinds, comparisons, slowdown), ""]
    false, total = false_in_splits([study for found in kinds.values() for study in found])
    return "\n".join(
        [*lines, f"Halves of the measured processes, without simulation: {false} of {total} have a verdict."]
    )


def _rates_table(kinds: Mapping[str, Sequence[Study]], comparisons: int, slowdown: float) -> str:
    body = []
    for name, studies in kinds.items():
        for rows in ROWS:
            for processes in PROCESSES:
                found = rates(studies, processes, comparisons, rows, slowdown)
                body.append([name, str(rows), str(processes), f"{found.false:.1%}", f"{found.found:.1%}"])
    return markdown(("path", "rows", "processes", "false verdicts", "slowdowns found"), body)


def _needed_table(kinds: Mapping[str, Sequence[Study]], comparisons: int, slowdown: float) -> str:
    body = []
    for name, studies in kinds.items():
        by_path: dict[tuple[str, str], list[Study]] = {}
        for study in studies:
            by_path.setdefault((study.path.backend, study.path.precision), []).append(study)
        for (backend, precision), found in sorted(by_path.items()):
            needed = [processes_needed(study, slowdown, comparisons) for study in found]
            spreads = [study.variance**0.5 for study in found]
            most = f"over {SEARCHED[-1]}" if None in needed else str(max(number for number in needed if number))
            body.append([name, f"{backend} {precision}", f"{min(spreads):.2%} to {max(spreads):.2%}", most])
    return markdown(("path", "backend", "spread of processes", "processes"), body)


def main(arguments: Sequence[str]) -> int:
    """Print the rates. Return 0, or 2 if the command was refused."""

    def run() -> int:
        options = _parser().parse_args(arguments)
        at_least("--comparisons", options.comparisons, 10)
        between("--slowdown", options.slowdown, 0.001, 10)
        print(report(options.comparisons, options.slowdown))
        return 0

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "comparing.verdict_rates",
        "Measure how often suites.compare gives a false verdict, and how often it finds a planted slowdown.\n\n"
        "It simulates comparisons with the noise between processes of the committed records.\n"
        "Output: a table of the rates.",
        ("", "--comparisons 2000 --slowdown 0.05"),
    )
    parser.add_argument(
        "--comparisons", type=int, default=COMPARISONS, metavar="N",
        help=f"simulated comparisons for each figure; default {COMPARISONS}",
    )  # fmt: skip
    parser.add_argument(
        "--slowdown", type=float, default=SLOWDOWN, metavar="S", help=f"planted slowdown; default {SLOWDOWN}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
