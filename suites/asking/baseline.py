"""Check of the key baseline=: the rows that the table at the end of a run compares others with."""

from __future__ import annotations

from collections.abc import Iterable

from backends.registry import descriptions
from suites.schema.enums import Precision
from suites.schema.refusals import Refused, did_you_mean, shortened


def check_baseline(text: str, name: str = "baseline=", backends: Iterable[str] = ()) -> None:
    """Check a baseline, which is BACKEND/PRECISION, or BACKEND for FP32.

    Args:
        name: name of the key or option in a refusal.
        backends: backends that are known in addition to those of this installation.

    Raises:
        Refused: there is no such backend or precision.
    """
    backend, slash, precision = text.partition("/")
    known, precisions = sorted({*descriptions(), *backends}), [choice.name for choice in Precision]
    if backend not in known:
        raise Refused(
            f"{name}{shortened(text)}: there is no backend {shortened(backend) or '(nothing)'}; "
            f"{did_you_mean(backend, known)}write BACKEND/PRECISION, such as ort/fp16; backends: {', '.join(known)}"
        )
    if slash and precision not in precisions:
        raise Refused(
            f"{name}{shortened(text)}: there is no precision {shortened(precision) or '(nothing)'}; "
            f"{did_you_mean(precision, precisions)}choices: {', '.join(precisions)}"
        )
