"""Session of compiled programs, one for each optimization profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from backends.base import Device, Feeds, Shape
from backends.profiles import Profile, choose_profile
from backends.torch_.torch_session import TorchSteps
from backends.torch_tensorrt_.compile_profiles import INPUTS

if TYPE_CHECKING:
    import torch

Program = Callable[..., "torch.Tensor"]


class ProgramSession(TorchSteps):
    """Session that runs the program of the profile that contains the shape and has the fewest shapes.

    The engines run on the stream of the session, which is not the default stream.

    Args:
        programs: a program for each profile. It takes int32 arrays [batch, sequence] in the order of INPUTS.
    """

    def __init__(self, programs: Sequence[tuple[Profile, Program]], device: Device) -> None:
        super().__init__(device.kind, device.index)
        self._profiles = [profile for profile, _ in programs]
        self._programs = [program for _, program in programs]
        self._program = self._programs[0]

    def close(self) -> None:
        self._programs.clear()
        del self._program
        super().close()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        index = choose_profile(self._profiles, Shape(*feeds["input_ids"].shape), "torch_tensorrt")
        self._program = self._programs[index]
        yield "program"
        self._use(feeds)
        yield "set shape"

    def _forward(self) -> torch.Tensor:
        inputs = self._buffers.inputs
        return self._program(*(inputs[name] for name in INPUTS if name in inputs))
