"""Tables of suite=limits about engines that were built on a share of the SMs."""

from __future__ import annotations

from suites.limits.result import EngineBuild, LimitsResult
from suites.tables.markdown import digits, fitted, notes_cell
from suites.text import essential

PAIR_COLUMNS = ("batch", "seq", "share", "graph", "all SMs p50 ms", "share p50 ms", "change", "all SMs seq/s",
                "share seq/s", "notes")  # fmt: skip

BUILD_COLUMNS = ("built on", "build s", "layers", "other tactics", "notes")

LEGEND = """\
**Engines built under a limit.** The builder measures its tactics on a share of the SMs. Each row compares two engines
that both run on this share.

- **all SMs p50 ms**: median time of a step with the engine that was built on all SMs.
- **share p50 ms**: the same with the engine that was built on the share.
- **change**: of the second time against the first; below 0, the engine built on the share is faster. The two engines
  run in different processes.
- **built on**: share of the SMs for the build.
- **build s**: wall time of the build. It is shorter if earlier builds left timings.
- **other tactics**: layers whose tactic differs from that of the engine built on all SMs.
- **notes**: times that were not steady after the warm-up, or why there is no engine."""


def engine_lines(result: LimitsResult) -> list[str]:
    """Return the lines of both tables; none without builds under a limit."""
    if not result.builds:
        return []
    return [
        "Engines built under a limit:",
        "",
        fitted(PAIR_COLUMNS, pair_rows(result), 4),
        "",
        fitted(BUILD_COLUMNS, [_build(build) for build in result.builds], 1),
        "",
    ]


def pair_rows(result: LimitsResult) -> list[list[str]]:
    """Return a row for each shape, share below 1 and CUDA graph setting; last the rows without times of all SMs."""
    pairs = [
        [
            str(whole.batch),
            str(whole.sequence),
            f"{whole.share:.0%}",
            "yes" if whole.cuda_graph else "no",
            digits(whole.p50_ms),
            digits(own.p50_ms),
            f"{own.p50_ms / whole.p50_ms - 1:+.0%}",
            digits(whole.sequences_per_s),
            digits(own.sequences_per_s),
            notes_cell("" if whole.steady and own.steady else "not steady after warm-up"),
        ]
        for whole, own in result.engine_pairs()
    ]
    alone = [
        [
            str(own.batch),
            str(own.sequence),
            f"{own.share:.0%}",
            "yes" if own.cuda_graph else "no",
            "",
            digits(own.p50_ms),
            "",
            "",
            digits(own.sequences_per_s),
            notes_cell("the engine built on all SMs has no times", "" if own.steady else "not steady after warm-up"),
        ]
        for own in result.engines_alone()
    ]
    return [*pairs, *alone]


def _build(build: EngineBuild) -> list[str]:
    others = "" if build.other_tactics is None else str(build.other_tactics)
    return [
        f"{build.share:.0%}" if build.share else "all SMs",
        digits(build.seconds) if build.seconds else "",
        str(build.layers) if build.layers else "",
        others,
        notes_cell(f"{build.outcome}: {essential(build.reason)}" if build.outcome else ""),
    ]
