"""A file of arrivals: per line the seconds since the start and, if it is known, the number of tokens of the request."""

from __future__ import annotations

import re

from suites.schema.refusals import Refused, numbered_lines, shortened
from suites.serving.arrivals import MOST_ARRIVALS

LINE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)(?:\s*[\s,]\s*([0-9]{1,5}))?")


def read_arrivals(path: str) -> tuple[tuple[int, int], ...]:
    """Return the time in ns and the number of tokens (0: not known) of each request, in order.

    Raises:
        Refused: the file is missing or empty, or a line is malformed or earlier than the line before; the message names
            the file and the line.
    """
    arrivals: list[tuple[int, int]] = []
    for number, line in numbered_lines("serving.trace", path):
        match = LINE.fullmatch(line)
        tokens = int(match[2] or 0) if match else 0
        if not match or (match[2] and tokens < 2):
            raise Refused(
                f"{path}, line {number}: {shortened(line)!r} is not a time in seconds and a number of tokens of at "
                "least 2; write e.g. 0.25 or 0.25 38"
            )
        at = round(float(match[1]) * 1e9)
        if arrivals and at < arrivals[-1][0]:
            raise Refused(f"{path}, line {number}: {shortened(line)!r} is earlier than the line before; sort the lines")
        arrivals.append((at, tokens))
    if len(arrivals) > MOST_ARRIVALS:
        raise Refused(f"{path} has {len(arrivals):,} requests; at most {MOST_ARRIVALS:,} are allowed: shorten the file")
    if len({tokens > 0 for _, tokens in arrivals}) > 1:
        raise Refused(f"{path}: some lines have a number of tokens and others have none; give it in all lines or none")
    return tuple(arrivals)
