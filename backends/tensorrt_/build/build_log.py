"""Progress of a build from TensorRT's verbose messages, for releases without IProgressMonitor."""

from __future__ import annotations

import re

PROFILE = re.compile(r"optimization profile number (\d+) \[(\d+)/(\d+)\]")
"""Message before the builder begins a profile: its index, and its number of all."""

FUSED = re.compile(r"^After .*: (\d+) layers")
"""Message after each step of fusion: the number of layers that remain."""

TIMING = re.compile(r"Timing Runner: (.+?) \((\w+)\[?")
"""Message before the tactics of a layer are timed: the layer, and the kind of the kernels."""

LONGEST = 40
"""Characters of the name of a layer that are shown. The name of a fused layer lists all layers in it."""


class BuildLog:
    """Reader of the messages of one build.

    Attributes:
        text: current profile, share of its layers and layer in words; empty before tactics are timed.
    """

    def __init__(self) -> None:
        self.text = ""
        self._profile = ""
        self._layers = 0
        self._timed: set[str] = set()

    def read(self, message: str) -> None:
        """Read a message. Messages of unknown form change nothing."""
        if timing := TIMING.search(message):
            layer, kind = timing.groups()
            self._timed.add(layer)
            name = layer if len(layer) <= LONGEST else f"{layer[:LONGEST]}..."
            self.text = f"{self._profile}{self._share()}{name} ({kind})"
        elif fused := FUSED.search(message):
            self._layers = int(fused[1])
        elif profile := PROFILE.search(message):
            _, number, count = profile.groups()
            self._profile = f"profile {number} of {count}, " if int(count) > 1 else ""
            self._timed.clear()

    def _share(self) -> str:
        """Return the number of timed layers, of all; empty if it is not known. Layers with timings are skipped."""
        known = 0 < len(self._timed) <= self._layers
        return f"layer {len(self._timed)} of up to {self._layers}, " if known else ""
