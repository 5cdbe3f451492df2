"""GPUs of a batch, one of which may disappear while the batch runs. The numbers of the others then change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

KEY = "gpu="


class BatchGpus:
    """GPUs by the number that each had at the start of the batch.

    Args:
        uuids: UUIDs of the GPUs at the start.
        present: returns the UUIDs of the GPUs that exist now.
    """

    def __init__(self, uuids: Sequence[str] = (), present: Callable[[], Sequence[str]] = tuple) -> None:
        self._uuids = list(uuids)
        self._present = present
        self._gone: set[str] = set()

    def gone(self, device: str) -> bool:
        """Return whether a GPU, given by its number at the start, was found to be missing."""
        return device in self._gone

    def check(self, device: str) -> bool:
        """Return whether a GPU exists now. A missing GPU stays missing: it is not used again in this batch."""
        if device and self._uuids and self._uuids[int(device)] not in self._present():
            self._gone.add(device)
        return not self.gone(device)

    def current(self, words: Sequence[str]) -> list[str]:
        """Return words with the number that their GPU has now. The GPU must exist."""
        present = list(self._present()) if self._uuids else []
        return [
            f"{KEY}{present.index(self._uuids[int(word.removeprefix(KEY))])}"
            if present and word.startswith(KEY)
            else word
            for word in words
        ]


def device_of(words: Sequence[str]) -> str:
    """Return the number of the GPU in words; "" if they name none."""
    return next((word.removeprefix(KEY) for word in words if word.startswith(KEY)), "")
