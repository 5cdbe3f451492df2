"""Small parts of a record: environment, checks of outputs, settings, maker, and further processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from backends.json_part import Part, optional, optional_mapping
from suites.measuring.output_difference import ReferenceDifference
from suites.records.facts import Facts


@dataclass(frozen=True)
class Environment(Part):
    """Machine and software of a measurement. A field that does not apply to the device is None.

    Attributes:
        machine: name of the folder of the machine's records. A table never mixes records of different machines.
        uuid: identity of the GPU, or of the host for a CPU. It distinguishes devices of the same name.
        cpu, gpu: names of the processors.
        driver, cuda_driver: versions of the GPU's driver and of the CUDA that it supports.
        cores, features, cpu_quota: usable cores, instruction sets, and the limit of the cgroup in CPUs.
        versions: versions of Python and of packages, by name.
    """

    machine: str
    uuid: str = optional("")
    cpu: str = optional("")
    gpu: str | None = optional(None)
    driver: str | None = optional(None)
    cuda_driver: str | None = optional(None)
    memory_bytes: int | None = optional(None)
    max_sm_clock_mhz: int | None = optional(None)
    power_limit_w: float | None = optional(None)
    cores: int | None = optional(None)
    features: tuple[str, ...] | None = optional(None)
    cpu_quota: float | None = optional(None)
    system: str = optional("")
    architecture: str = optional("")
    versions: Mapping[str, str] = optional_mapping()


@dataclass(frozen=True)
class Check(Part):
    """Comparison of an output with the FP32 reference, at one shape.

    Attributes:
        nonfinite, cosine, token_cosine, max_difference: see ReferenceDifference in suites/measuring.
        problem: the reason why the output is wrong; empty if it is right.
        when: when the output was compared; empty if there is only one time.
        process: number of the fresh process that measured, from 0.
    """

    batch: int
    sequence: int
    cuda_graph: bool
    nonfinite: int
    cosine: float | None
    token_cosine: float | None = None
    max_difference: float | None = None
    problem: str = ""
    when: str = optional("")
    process: int = optional(0)

    @classmethod
    def of(cls, difference: ReferenceDifference, shape: tuple[int, int], cuda_graph: bool, when: str = "") -> Check:
        """Return the check of one output. `shape` is batch and sequence."""
        batch, sequence = shape
        return cls(batch=batch, sequence=sequence, cuda_graph=cuda_graph, when=when, **asdict(difference))

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.sequence


@dataclass(frozen=True)
class Settings(Part):
    """Duration and sample limits of the measurement, see Effort in suites/measuring/clock.py. Not part of the cell."""

    warm_up_s: float | None = optional(None)
    seconds: float | None = optional(None)
    min_samples: int | None = optional(None)
    max_samples: int | None = optional(None)
    tolerance: float | None = optional(None)
    pairs_s: float | None = optional(None)
    replay_s: float | None = optional(None)


@dataclass(frozen=True)
class Maker(Part):
    """Version of the suite that made a record, its commit, and whether its code differed from the commit."""

    version: str = ""
    commit: str = ""
    dirty: bool = False


@dataclass(frozen=True)
class Process(Part):
    """A fresh process that measured after the first: its number, its end, and its facts."""

    process: int
    measured_at: str = ""
    facts: Facts = field(default_factory=Facts)
