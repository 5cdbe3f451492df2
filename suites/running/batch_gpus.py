"""GPUs of a batch, one of which may disappear while the batch runs.

The numbers of the others then change at any moment, so processes select their GPU by its UUID.
"""

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

    def environment(self, device: str) -> dict[str, str]:
        """Return the variable that shows a process only one GPU, which then has number 0; {} without GPUs."""
        return {"CUDA_VISIBLE_DEVICES": self._uuids[int(device)]} if device and self._uuids else {}


def device_of(words: Sequence[str]) -> str:
    """Return the number of the GPU in words; "" if they name none."""
    return next((word.removeprefix(KEY) for word in words if word.startswith(KEY)), "")
