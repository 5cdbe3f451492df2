"""A builder that starts during the export: the order of events, the end of its process, and failures.

A planted backend and a planted interpreter note events, one a line. The interpreter runs the export only after the
builder has started, so a builder that starts later would never start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, wait_until

from backends.base import Artifact, BuildSpec, Device, Source
from backends.null_.null_options import NullOptions
from suites.records.record import TIMEOUT
from suites.records.results_folder import read_records
from suites.running.builder_job import LOCK, BuilderJob
from suites.running.builder_process import BuilderProcess
from suites.running.job import BuildJob
from suites.running.launch import Interpreter

DESCRIPTION = """
from dataclasses import dataclass

from backends.config_key import key
from backends.description import BackendDescription, SourceKind
from backends.options import BackendOptions, Profiles


@dataclass
class PlantedOptions(BackendOptions):
    level: int = key(0, "Level of the builder.")
    profiles: Profiles = Profiles.per_shape


@dataclass
class PlantedKeys:
    level: int = key(0, "Level of the builder.")


BACKENDS = (
    BackendDescription(
        name="planted",
        factory="backends.planted_.planted:Planted",
        source=SourceKind.none,
        devices=("cpu",),
        time_limit_s=300.0,
        builds_engine=True,
        starts_builder=True,
        options=PlantedOptions,
        groups={"planted": PlantedKeys},
        build_sweep={"level": (0, 1)},
    ),
)
"""

MODULE = """
import fcntl
import os
from pathlib import Path

from backends.base import Backend
from backends.cache import EARLY_S, ArtifactCache
from backends.null_.null import Costs, NullSession

EVENTS = Path(os.environ["EVENTS"])


def note(event):
    with EVENTS.open("a") as events:
        events.write(f"{event} {os.getpid()}\\n")


def lock_state():
    with open("starting.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "locked"
    return "free"


class Planted(Backend):
    distributions = ("numpy",)

    def check(self, spec):
        pass

    def start_builder(self, spec):
        self.early = True
        note(f"start {lock_state()}")
        exec(os.environ.get("FAULT", ""))

    def build(self, spec, source):
        early = hasattr(self, "early")
        note(f"build {lock_state()}" if early else "build fresh")

        def write(path):
            path.write_text("engine")
            return {EARLY_S: 1000.0} if early else {}

        return ArtifactCache(spec.cache).get("engine", {"level": spec.options.level}, "engine.txt", write, {})

    def opening(self, spec, artifact):
        yield "session", NullSession("ok", Costs(step_ms=0.0, gpu_ms=1.0))
"""

PYTHON = """\
#!/bin/sh
if [ "$3" = export ]; then
  [ -n "$ALONE" ] || until grep -q ^start "$EVENTS" 2>/dev/null; do sleep 0.05; done
  echo "export $$" >> "$EVENTS"
  eval "$EXPORT"
fi
exec PYTHON "$@"
"""


class Planted:
    """Runs of a cell of the planted backend."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events_file = folder, folder / "events"
        backend = folder / "third party" / "backends" / "planted_"
        backend.mkdir(parents=True)
        (backend / "description.py").write_text(DESCRIPTION)
        (backend / "planted.py").write_text(MODULE)
        self.python = folder / "python"
        self.python.write_text(PYTHON.replace("PYTHON", sys.executable))
        self.python.chmod(0o755)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(backend.parents[1]),
            "EVENTS": str(self.events_file),
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "suites.run", "backend=planted", "batch=[1]", "sequence=[8]", "suite.seconds=0.02",
            "suite.warm_up_s=0.02", "suite.min_samples=2", "repeats=1", f"interpreter.main={self.python}",
            f"cache={self.folder / 'cache'}", f"results={self.folder / 'results'}", *words,
        ]  # fmt: skip
        return subprocess.Popen(command, cwd=ROOT, env={**self.environment, **environment})

    def run(self, *words: str, **environment: str) -> int:
        return self.start(*words, **environment).wait()

    def events(self) -> list[str]:
        """Return the events so far, without process ids."""
        return [line.rpartition(" ")[0] for line in self._lines()]

    def processes(self) -> list[int]:
        return [int(line.rpartition(" ")[2]) for line in self._lines()]

    def _lines(self) -> list[str]:
        return self.events_file.read_text().splitlines() if self.events_file.exists() else []


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def is_alive(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_the_builder_starts_before_the_export_ends_and_builds_after_it(planted: Planted) -> None:
    assert planted.run() == 0
    assert planted.events() == ["start locked", "export", "build free"]
    started, _, built = planted.processes()
    assert started == built
    (record,) = read_records(planted.folder / "results", "latency")
    assert record.artifacts.built is not None
    assert record.artifacts.built.seconds is not None
    assert record.artifacts.built.seconds > 1000  # with the seconds of the start, which the backend says were 1000
    assert record.stages["build"] < 1000


def test_no_builder_starts_for_an_engine_in_the_cache(planted: Planted) -> None:
    assert planted.run("until=build") == 0
    planted.events_file.unlink()
    assert planted.run("until=build", ALONE="yes") == 0
    assert planted.events() == ["export", "build fresh"]


@pytest.mark.parametrize(
    ("words", "builds"),
    [(("until=export",), 0), (("suite=building", "building.profiles=[]", "building.repeats=1"), 3)],
)
def test_no_builder_starts_without_a_build_or_if_builds_are_compared(
    planted: Planted, words: tuple[str, ...], builds: int
) -> None:
    """suite=building has a first build, one with its timings, and one with the other value of `level`."""
    assert planted.run(*words, ALONE="yes") == 0
    assert planted.events() == ["export", *["build fresh"] * builds]


@pytest.mark.parametrize("fault", ["1 / 0", "os._exit(3)", "os.kill(os.getpid(), 11)"])
def test_a_builder_that_does_not_start_early_is_started_again(planted: Planted, fault: str) -> None:
    assert planted.run("until=build", FAULT=fault) == 0
    assert planted.events() == ["start locked", "export", "build fresh"]


def test_the_builder_ends_if_the_export_fails(planted: Planted) -> None:
    assert planted.run(EXPORT="exit 3") == 1
    assert planted.events() == ["start locked", "export"]
    assert not is_alive(planted.processes()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_builder_ends_with_a_run_that_is_ended_during_the_export(planted: Planted, number: signal.Signals) -> None:
    with planted.start(EXPORT="sleep 600") as process:
        wait_until(lambda: process.poll() is not None or "export" in planted.events())
        assert process.poll() is None
        process.send_signal(number)
    wait_until(lambda: not any(map(is_alive, planted.processes())))


Fake = Callable[[str], BuilderProcess]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    def started(body: str) -> BuilderProcess:
        """Start a worker that runs `body` instead; the job folder is the current folder."""
        script = tmp_path / "fake-python"
        script.write_text(f"#!{sys.executable}\nimport os, sys, time\nfrom pathlib import Path\n{body}\n")
        script.chmod(0o755)
        job = BuilderJob("null", spec(tmp_path), tmp_path / "build")
        return BuilderProcess(job, Interpreter(str(script)), lambda text, keep: shown.append((text, keep)))

    shown: list[tuple[str, bool]] = []
    return started


def spec(folder: Path) -> BuildSpec:
    return BuildSpec("fp32", Device(), (), False, folder, NullOptions())


def build_job(folder: Path) -> BuildJob:
    return BuildJob("null", spec(folder), Source(folder, ""))


def test_a_builder_that_never_starts_ends_at_the_time_limit_of_the_build(fake: Fake, tmp_path: Path) -> None:
    answer = fake("time.sleep(3600)").build(build_job(tmp_path), 0.1)
    assert answer is not None
    assert (answer.outcome, answer.reason) == (TIMEOUT, "build was stopped after 0.1 s")


def test_a_builder_that_has_ended_takes_no_build(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "taken").touch()  # of an earlier round
    builder = fake("os.write(1, b'noise' * 500_000); os._exit(0)")
    assert builder.build(build_job(tmp_path), 1000) is None
    log = (tmp_path / "build" / "log.txt").read_bytes()
    builder.end()
    assert (tmp_path / "build" / "log.txt").read_bytes() == log


def test_a_crash_during_the_build_is_its_failure(fake: Fake, tmp_path: Path) -> None:
    builder = fake("sys.stdin.readline(); Path('taken').touch(); os.kill(os.getpid(), 11)")
    answer = builder.build(build_job(tmp_path), 1000)
    assert answer is not None
    assert answer.reason == "build was killed by SIGSEGV without an answer"


def test_the_answer_is_that_of_the_build(fake: Fake, tmp_path: Path) -> None:
    body = """
sys.stdin.readline()
assert Path("build.json").exists()
Path("taken").touch()
Path("out.json").write_text('{"outcome": "ok", "reason": "", "result": {"path": "a", "sha256": "0"}}')
"""
    answer = fake(body).build(build_job(tmp_path), 1000)
    assert answer is not None
    assert answer.result == Artifact(Path("a"), "0")
    assert (tmp_path / "build" / LOCK).exists()
