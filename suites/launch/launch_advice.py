"""The advice of suite=launch: at which batch sizes a CUDA graph, or a step with less Python, saves time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suites.launch.result import LaunchResult, LaunchTimes

WORTH = 0.02
"""Shares below this one count as none."""


def sentences(result: LaunchResult) -> Iterator[str]:
    """Yield the advice for each sequence length."""
    for sequence in result.sequences:
        plain = result.plain(sequence)
        start = f"Sequence length {sequence}: "
        if any(times.steps for times in plain):
            yield start + _waiting(result, plain)
        if any(times.python_share is not None for times in plain):
            yield start + _python(plain)


def _waiting(result: LaunchResult, plain: Sequence[LaunchTimes]) -> str:
    known = [times for times in plain if times.waiting_share is not None]
    if not known:
        return "the share of time for which the GPU waits is not known, because its queue is too short for a step."
    shares = ", ".join(f"{times.waiting_share:.0%} at batch {times.batch}" for times in _ends(known))
    text = f"without a CUDA graph, the GPU waits for the host {shares} of the time."
    pairs = [(times, graph) for times in plain if (graph := result.at(times.batch, times.sequence, True))]
    if not pairs:
        return f"{text} The step was not captured as a CUDA graph."
    faster = [(times, graph) for times, graph in pairs if graph.step_ms < (1 - WORTH) * times.step_ms]
    if not faster:
        return f"{text} A CUDA graph saves less than {WORTH:.0%} at any batch, so plain steps are enough."
    most = max(faster, key=lambda pair: pair[0].step_ms / pair[1].step_ms)
    batches = ", ".join(str(times.batch) for times, _ in faster)
    gain = 1 - most[1].step_ms / most[0].step_ms
    return f"{text} Use CUDA graphs at batch {batches}; they save up to {gain:.0%} of a step, at batch {most[0].batch}."


def _python(plain: Sequence[LaunchTimes]) -> str:
    known = [times for times in plain if times.python_share is not None]
    shares = ", ".join(f"{times.python_share:.1%} at batch {times.batch}" for times in _ends(known))
    whole = "the enqueue" if plain[0].steps else "a step"
    text = f"Python takes {shares} of {whole}."
    if plain[0].steps:
        return text
    worth = [str(times.batch) for times in known if (times.python_share or 0) >= WORTH]
    if not worth:
        return f"{text} A server without Python saves less than {WORTH:.0%}, so Python is no reason for another server."
    return f"{text} A server without Python saves at most this share; it is worth a trial at batch {', '.join(worth)}."


def _ends(times: Sequence[LaunchTimes]) -> Sequence[LaunchTimes]:
    """Return the smallest and the largest batch."""
    return times if len(times) < 2 else (times[0], times[-1])
