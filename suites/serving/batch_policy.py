"""Rules of the batches of a server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPolicy:
    """Rules of batches.

    Attributes:
        most_requests: most requests of a batch; 1 serves one request at a time.
        most_tokens: most tokens of a batch, 0 for no limit: with its padding, or without if it is packed. A longer
            request is alone.
        wait_ns: time after the arrival of its first request at which an incomplete batch starts.
        queue: most waiting requests.
        longest: most tokens of a request.
        pads_to_built: whether a batch is padded to a built shape instead of to its longest request.
        packed: whether the backend removes padding.
        tokenizes: whether requests are texts, which a worker tokenizes in batches.
        grouped: whether a batch has requests of similar lengths; see suites/serving/length_groups.py.
        multiple: the number of packed tokens is rounded up to a multiple of this.
    """

    most_requests: int = 1
    most_tokens: int = 0
    wait_ns: int = 0
    queue: int = 1000
    longest: int = 512
    pads_to_built: bool = False
    packed: bool = False
    multiple: int = 1
    grouped: bool = False
    tokenizes: bool = False

    def fitting(self, lengths: Iterable[int]) -> int:
        """Return how many of the first requests fit into one batch; at least 1 if there is one.

        Args:
            lengths: number of tokens of each request, in order.
        """
        number = longest = total = 0
        for length in lengths:
            longest, total = max(longest, length), total + length
            tokens = total if self.packed else (number + 1) * longest
            if number == self.most_requests or (number and self.most_tokens and tokens > self.most_tokens):
                break
            number += 1
        return number
