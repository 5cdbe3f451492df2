"""Tools that profile a process from outside: Nsight Compute (ncu) and Nsight Systems (nsys).

Both observe only the work between cudaProfilerStart and cudaProfilerStop. Neither has run on a GPU in this form.
"""

from __future__ import annotations

import abc
import csv
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backends.base import Unavailable
from backends.kernel_times import KernelTime, ProfiledStep, StepProfile, idle_between, joined_kernels

Run = Callable[[Sequence[str]], object]
"""Runs the measuring process behind a command, given by its words."""

UNITS = {"ns": 1.0, "nsecond": 1.0, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6}
"""Nanoseconds of the units of ncu."""

METRIC = "gpu__time_duration.sum"


class Tool(abc.ABC):
    """A profiler with a command of its own."""

    command: str
    name: str
    package: str

    def profile(self, run: Run) -> StepProfile:
        """Return the step that `run` executes behind the tool.

        Raises:
            Unavailable: the tool is not installed, or wrote no profile.
        """
        if shutil.which(self.command) is None:
            raise Unavailable(
                f"{self.command} is not installed or not in PATH: install {self.name} (package {self.package} of "
                "NVIDIA's CUDA repository), or use profile=library"
            )
        with tempfile.TemporaryDirectory(prefix="profile_") as folder:
            run(self.words(Path(folder)))
            try:
                step = self.read(Path(folder))
            except (OSError, ValueError) as error:
                raise Unavailable(
                    f"{self.command} wrote no profile ({error}): see the log; reading counters may need root or "
                    "NVreg_RestrictProfilingToAdminUsers=0"
                ) from None
        return StepProfile(self.name, step)

    @abc.abstractmethod
    def words(self, folder: Path) -> Sequence[str]:
        """Return the command that comes before that of the process, and that writes its files to `folder`."""

    @abc.abstractmethod
    def read(self, folder: Path) -> ProfiledStep:
        """Return the step in the files of `folder`. Raise OSError or ValueError if there is none."""


class NsightCompute(Tool):
    """Runs kernels one by one, so that caches are colder than in a step. Idle is not measured."""

    command, name, package = "ncu", "Nsight Compute", "nsight-compute"

    def words(self, folder: Path) -> Sequence[str]:
        # Clocks stay as they are, so that the sum can be compared with a step without profiler.
        return (self.command, "--profile-from-start", "off", "--clock-control", "none", "--metrics", METRIC, "--csv",
                "--log-file", str(folder / "kernels.csv"))  # fmt: skip

    def read(self, folder: Path) -> ProfiledStep:
        return ProfiledStep(joined_kernels(ncu_kernels((folder / "kernels.csv").read_text(encoding="utf-8"))))


class NsightSystems(Tool):
    command, name, package = "nsys", "Nsight Systems", "nsight-systems"

    def words(self, folder: Path) -> Sequence[str]:
        return (self.command, "profile", "--trace=cuda", "--sample=none", "--cpuctxsw=none",
                "--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--output",
                str(folder / "step"))  # fmt: skip

    def read(self, folder: Path) -> ProfiledStep:
        report = ("stats", "--report", "cuda_gpu_trace", "--format", "csv", str(folder / "step.nsys-rep"))
        done = subprocess.run([self.command, *report], capture_output=True, encoding="utf-8", check=False)
        return nsys_step(done.stdout)


TOOLS: Mapping[str, Tool] = {"ncu": NsightCompute(), "nsys": NsightSystems()}


def ncu_kernels(text: str) -> list[KernelTime]:
    """Return the kernels in the CSV output of ncu, in the order of execution. Lines before the header are skipped.

    Raises:
        ValueError: the text has no kernel, or a row without the metric gpu__time_duration.sum in a known unit.
    """
    rows = _table(text, "Kernel Name")
    try:
        return [
            KernelTime(row["Kernel Name"], round(_number(row["Metric Value"]) * UNITS[row["Metric Unit"]]))
            for row in rows
        ]
    except (KeyError, AttributeError) as error:
        raise ValueError(f"no kernel times by Nsight Compute: {error!r}") from None


def nsys_step(text: str) -> ProfiledStep:
    """Return the step in the CSV output of `nsys stats --report cuda_gpu_trace`.

    Raises:
        ValueError: the text has no kernel, or a row lacks a time or a name.
    """
    rows = _table(text, "Start (ns)")
    try:
        spans = [(round(_number(row["Start (ns)"])), round(_number(row["Duration (ns)"]))) for row in rows]
        kernels = joined_kernels(KernelTime(row["Name"], spent) for row, (_, spent) in zip(rows, spans, strict=True))
    except (KeyError, AttributeError) as error:
        raise ValueError(f"no trace by Nsight Systems: {error!r}") from None
    return ProfiledStep(kernels, idle_between((start, start + spent) for start, spent in spans))


def _table(text: str, column: str) -> list[dict[str, str]]:
    """Return the rows of the table whose header has `column`."""
    lines = text.splitlines()
    headers = (number for number, line in enumerate(lines) if column in next(csv.reader([line]), ()))
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[next(headers, len(lines)) :]))))
    if not rows:
        raise ValueError(f"no table with the column {column}")
    return rows


def _number(text: str) -> float:
    return float(text.replace(",", ""))
