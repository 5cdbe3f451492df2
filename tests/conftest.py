"""Shared fixtures: a command line with its own folders, tiny models, jobs and records of the null backend."""

from __future__ import annotations

import isolation

# isort: split

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest

from backends.base import Array, BuildSpec, Device, Session, Shape
from backends.cache import ArtifactCache
from backends.json_codec import from_json, to_json
from backends.model.families import FAMILIES
from backends.model.reference import ModelReference
from backends.null_ import null
from backends.null_.null import Costs, NullSession
from backends.null_.null_options import NullOptions
from suites.cli.display import STARTED
from suites.cli.local_settings import interpreters
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun
from suites.records.artifacts import Artifacts, BuiltFile
from suites.records.cell import Cell
from suites.records.facts import Facts
from suites.records.measurement import Measurement
from suites.records.parts import Check, Environment, Maker, Process, Settings
from suites.records.record import Record, result_type
from suites.running.job import ProbeJob
from suites.switching.suite import SwitchingQuestion, started
from suites.switching.traffic import blocks_of_runs

pytest_plugins = ["cpu_durations"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON_WITH_TENSORRT = os.environ.get("SUITES_TRT_PYTHON") or interpreters().get("trt", "")
"""The interpreter with TensorRT, found in the same way as in a run; empty if there is none."""
TINY = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
OWN_SETTINGS = {
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 32},
    "ernie": {"use_task_id": True},
    "nomic_bert": {"vocab_size": 500},
    "eurobert": {"num_key_value_heads": 1, "pad_token_id": 1},
    "modernbert": {"local_attention": 16, "pad_token_id": 1},
    "deberta-v2": {
        "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
    },
}  # fmt: skip
"""Settings that turn on an optional part of a family, and smaller sizes."""


def tiny_architecture(model_type: str) -> dict[str, Any]:
    """Return the settings of a two-layer model, in the names of its family."""
    family = FAMILIES[model_type]
    small = {"vocab_size": 500} if family.vocabulary > 40_000 else {}
    positions = small if family.positions_from == "zero" else {"vocab_size": 500, "max_position_embeddings": 514}
    types = {"type_vocab_size": 1} if family.token_types == "several" else {}
    sizes = {family.settings.get(name, name): size for name, size in TINY.items()}
    return {"model_type": model_type, **positions, **types, **sizes, **OWN_SETTINGS.get(model_type, {})}


TINY_MODELS = {name: tiny_architecture(name) for name, family in FAMILIES.items() if family.named_layers}
OTHER_MODELS = {name: tiny_architecture(name) for name, family in FAMILIES.items() if not family.named_layers}
"""Families without the layer names that INT8 and plain weights need."""


SWITCHED = (Shape(1, 16), Shape(2, 16), Shape(3, 16))
"""Shapes of the records that `measured` makes."""
PATIENT = Effort(0.1, 0.1, 2, 10, 0.1, pairs_s=1e6, replay_s=1e6)

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Measured = Callable[..., Record]


def table_in(results: Path, name: str) -> Path:
    """Return the table of that name for the only machine and model in a results folder."""
    (path,) = results.glob(f"*/tables/*/{name}.md")
    return path


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition` is true. There is no limit here, because the machine may be busy; pytest-timeout stops
    a test that waits in vain."""
    while not condition():
        time.sleep(0.05)


NOBODY = 65534


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Run the block as a user who may not read or write files of root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def without_starts(error: str) -> list[str]:
    """Return the lines of a run on standard error, without those that say that a process starts."""
    return [line for line in error.splitlines() if line.strip() and not line.startswith(STARTED)]


def command_lines_with(text: str) -> list[str]:
    """Return the command lines of all running processes that contain `text`, such as the test's own folder."""
    # -ww: without it a ps that writes to a pipe may cut each line to 80 characters.
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if text in line]


def rounding_session(path: Path) -> Any:
    """Return an onnxruntime session that computes Q/DQ nodes in FP32. The INT8 kernels saturate on a CPU without
    VNNI."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure_run(
    session: Callable[[], Session], shapes: Sequence[Shape], arrays: Mapping[str, Array], effort: Effort,
    cuda_graph: bool = False,
) -> MeasureRun:  # fmt: skip
    """Return a measuring process in which each opening returns a new session."""

    def opening() -> Iterator[tuple[str, Session | None]]:
        return iter([("import", None), ("open", session())])

    return MeasureRun(opening, tuple(shapes), arrays, effort, cuda_graph, lambda text: None)


def pytest_unconfigure() -> None:
    isolation.remove()


def pytest_runtest_setup() -> None:
    in_process.freeze_modules()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `python -m suites.run ARGS` in this process, with results and cache in the test's own folder.

    Each stage is a worker process. `command` also starts a process for the command line; `fast_cli` starts no
    process.
    """

    def run(*arguments: str, folders: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        own = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}") if folders else ()
        if not any(word.startswith("repeats=") for word in arguments):
            own = ("repeats=1", *own)
        return in_process.command_line([*arguments, *own], ROOT, environment)

    return run


@pytest.fixture
def in_process_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the stages of a cell in this process. A process that imports torch takes seconds of CPU time."""
    monkeypatch.setattr("suites.running.stages.call", in_process.stage)


@pytest.fixture
def fast_cli(tmp_path: Path, shared_cache: ArtifactCache, in_process_stages: None) -> Cli:
    """Run a command line as `cli` does, but with the stages in this process and with the cache that all tests share,
    because models are slow to export."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = ("repeats=1", f"results={tmp_path / 'results'}", f"cache={shared_cache.root}")
        return in_process.command_line([*own, *arguments], ROOT, environment)

    return run


@pytest.fixture
def exact_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a clock that only programmed costs advance."""
    now = [0]

    def spend(milliseconds: float) -> None:
        now[0] += round(1e6 * milliseconds)

    monkeypatch.setattr(null, "_spend", spend)
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])


@pytest.fixture
def command(tmp_path: Path) -> Cli:
    """Start `python -m suites.run ARGS` in a new process, with results and cache in the test's own folder. Only for
    the few end-to-end tests."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
        own += () if any(word.startswith("repeats=") for word in arguments) else ("repeats=1",)
        return subprocess.run(
            [sys.executable, "-m", "suites.run", *arguments, *own],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    """Return one cache for all tests and pytest-xdist workers of a run. It locks an entry while a process builds it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if isolation.XDIST_WORKER else base) / "shared-cache"
    root.mkdir(exist_ok=True)
    return ArtifactCache(root)


@pytest.fixture(scope="session")
def tiny(shared_cache: ArtifactCache) -> Callable[[str], tuple[Path, str]]:
    """Return the folder and the identity of a random two-layer checkpoint of a family."""
    from backends.model.checkpoint import find_checkpoint

    def make(family: str) -> tuple[Path, str]:
        checkpoint = find_checkpoint(
            ModelReference("random", architecture={**TINY_MODELS, **OTHER_MODELS}[family]), shared_cache
        )
        return checkpoint.folder, checkpoint.identity

    return make


@pytest.fixture
def null_job(tmp_path: Path) -> ProbeJob:
    """Return the job of the null backend's probe, at one shape."""
    options = NullOptions(step_ms=0.1)
    return ProbeJob("null", BuildSpec("fp32", Device(), (Shape(2, 16),), False, tmp_path / "cache", options))


PARTS: Mapping[str, Any] = {
    "environment": Environment,
    "settings": Settings,
    "facts": Facts,
    "artifacts": Artifacts,
    "maker": Maker,
    "checks": tuple[Check, ...],
    "processes": tuple[Process, ...],
}
"""Types of the fields of a record that a test may give as JSON."""


def typed_parts(suite: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record; those that are JSON become the types of the record. `scores` is the result."""
    result = {
        name: from_json(PARTS[name], to_json(value)) if name in PARTS else value for name, value in fields.items()
    }
    if "scores" in result:
        scores = result.pop("scores")
        result["result"] = from_json(result_type(suite), to_json(scores)) if scores else None
    return result


def replaced(record: Record, **changes: Any) -> Record:
    """Return the record with other fields, which may be JSON; see `typed_parts`."""
    return replace(record, **typed_parts(record.cell.suite, changes))


def json_of(record: Record) -> dict[str, Any]:
    """Return a record as in its file, without a digest."""
    return json.loads(json.dumps(record.to_json()))


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Return a record of one shape with fixed samples. Keywords replace fields of the cell or of the record, see
    `typed_parts`."""

    def make(machine: str = "gpu-a", samples: tuple[int, ...] = (1_000_000,) * 20, **changes: Any) -> Record:
        fields: dict[str, Any] = {
            "suite": "latency", "model": "tiny", "weights": "random (seed 0)", "model_version": "", "backend": "null",
            "release": "null 1.0", "precision": "fp32", "device": "cuda", "shapes": ((2, 16),),
            "lengths": {"distribution": "full", "tokens": "auto"}, "options": {"cuda_graph": True},
        }  # fmt: skip
        cell = Cell(**{name: changes.pop(name, value) for name, value in fields.items()})
        window = ((0, sum(samples), len(samples)),)
        base: dict[str, Any] = {
            "cell": cell,
            "outcome": "ok",
            "reason": "",
            "environment": Environment(machine, gpu=machine.upper(), driver="1.2", uuid="GPU-0"),
            "measurements": tuple(
                Measurement(phase, 2, 16, graph, tuple(s // (2 if graph else 1) for s in samples), window, True)
                for phase in ("gpu", "latency", "end_to_end", "enqueue", "sustained")
                for graph in (False, True)
            ),
            "checks": tuple(
                Check(batch=2, sequence=16, cuda_graph=graph, nonfinite=0, cosine=0.99998) for graph in (False, True)
            ),
            "artifacts": {"inputs": {"notes": {"tokens": "random", "shapes": {"2x16": {"tokens": 32, "cut": 0}}}}},
        }
        return Record(**typed_parts(cell.suite, {**base, **changes}))

    return make


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Install a simulated clock, which only programmed costs advance. Each cost has noise: about 10% up or down, and
    once in a hundred times a factor of two, with the programmed cost as its mean. The real machine has no influence.
    A call with a seed restarts the clock."""
    from backends.null_ import null
    from suites.measuring import clock

    state: dict[str, Any] = {"now": 0, "generator": np.random.default_rng(0)}

    def spend(milliseconds: float) -> None:
        generator = state["generator"]
        noise = 2.0 if generator.random() < 0.01 else generator.normal(0.99, 0.1)
        state["now"] += round(milliseconds * 1e6 * noise)

    def now_ns() -> int:
        state["now"] += 1000  # otherwise a loop that waits for the clock would never end if no cost is spent
        return int(state["now"])

    monkeypatch.setattr(null, "_spend", spend)
    monkeypatch.setattr(clock, "now_ns", now_ns)

    def begin(seed: int) -> None:
        state.update(now=0, generator=np.random.default_rng(seed))

    return begin


@pytest.fixture
def measured(simulated: Callable[[int], None], tmp_path: Path, make_record: Callable[..., Record]) -> Measured:
    """Return the record of null sessions with programmed costs at SWITCHED, measured as in a worker."""
    from suites.running import null_inputs
    from suites.switching import cold_start
    from suites.switching.measure import measure as measure_switching

    def measure(
        programmed: Costs, session: Callable[[Costs], Any] = lambda costs: NullSession("ok", costs), repeats: int = 40,
        requests: int = 1000, switches: tuple[float, ...] = (), effort: Effort = PATIENT, seed: int = 0,
        held: tuple[Shape, ...] = SWITCHED, starts: int = 0, **options: Any,
    ) -> Record:  # fmt: skip
        simulated(seed)
        arrays = dict(np.load(null_inputs.null_request_sets(tmp_path, SWITCHED, held).path))
        traces = {f"switch={switch:g}": blocks_of_runs(requests, switch, len(SWITCHED), 0) for switch in switches}
        traffic = {name: tuple(tuple(map(tuple, block)) for block in blocks) for name, blocks in traces.items()}
        run = measure_run(lambda: session(programmed), held, arrays, effort, programmed.gpu_ms > 0)
        question = SwitchingQuestion(SWITCHED, traffic, repeats, starts)
        answer = measure_switching(run, question)
        first_uses = [cold_start.time_cold_start(run, question, number) for number in range(starts)]
        checks = tuple(
            replace(c, problem="" if c.cosine is not None and c.cosine > 0.9 else "cosine is low")
            for c in answer.checks
        )
        wrong = [*answer.failures.values(), *(c.problem for c in checks if c.problem)]
        padded = {"pad_to": [[s.batch, s.sequence] for s in held]} if held != SWITCHED else {}
        record = make_record(suite="switching", shapes=tuple((s.batch, s.sequence) for s in SWITCHED), checks=checks,
                             options={**options, **padded})  # fmt: skip
        return replace(
            record,
            outcome="failed" if wrong else "ok",
            reason="; ".join(wrong),
            measurements=answer.measurements,
            facts=answer.facts,
            artifacts=Artifacts(built=BuiltFile(seconds=1.0)),
            result=started(answer.result, first_uses),
        )

    return measure
