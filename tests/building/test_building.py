"""suite=building with a backend that simulates builds: rounds, caches, comparison of engines, advice and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from markdown_rows import rows

from suites.building.advice import choices, sentences, shortest_near_best
from suites.building.result import (
    BUILT_AGAIN,
    FIRST,
    MEASURED_AGAIN,
    OPTION,
    SAVED_TIMINGS,
    Build,
    BuildingResult,
    Engine,
)
from suites.building.suite import joined
from suites.building.tables import COLUMNS, rows_of
from suites.records.record import Record
from suites.records.results_folder import read_records

QUICK = ("suite.seconds=0.02", "suite.warm_up_s=0.02", "suite.min_samples=2", "batch=[1,2]", "sequence=[16]",
         "building.profiles=[1,2]", "building.repeats=2")  # fmt: skip

DESCRIPTION = """
from dataclasses import dataclass

from backends.config_key import key
from backends.description import BackendDescription, SourceKind
from backends.options import BackendOptions, Profiles


@dataclass
class MaquetteOptions(BackendOptions):
    level: int = key(2, "Level of the simulated builder.")
    profiles: Profiles = Profiles.per_shape


@dataclass
class MaquetteKeys:
    level: int = key(2, "Level of the simulated builder.")


BACKENDS = (
    BackendDescription(
        name="maquette",
        factory="backends.maquette_.maquette:Maquette",
        source=SourceKind.none,
        devices=("cpu",),
        time_limit_s=300.0,
        options=MaquetteOptions,
        groups={"maquette": MaquetteKeys},
        builds_engine=True,
        build_sweep={"level": (0, 1, 2, 3)},
    ),
)
"""

MODULE = """
import json
import secrets

import numpy as np

from backends.base import Backend, Unsupported
from backends.cache import TIMINGS, ArtifactCache
from backends.null_.null import Costs, NullSession

STEP_MS = {0: 3.0, 1: 1.0, 2: 1.0}


class Maquette(Backend):
    '''The builder draws a tactic at random for each layer that the timings of its cache do not have.'''

    distributions = ("numpy",)

    def check(self, spec):
        pass

    def build(self, spec, source):
        level, names = spec.options.level, [f"layer {number}" for number in range(3)]
        if level == 3:
            raise Unsupported("this builder has no level 3")

        def write(path):
            timings = spec.cache / TIMINGS / "maquette.json"
            known = json.loads(timings.read_text()) if timings.exists() else {}
            tactics = {name: known.get(name) or secrets.token_hex(8) for name in names}
            timings.parent.mkdir(exist_ok=True)
            timings.write_text(json.dumps(tactics))
            path.write_text(json.dumps({"level": level, "tactics": tactics}))
            return {"profiles": [str(shape) for shape in spec.shapes]}

        key = {"level": level, "shapes": [str(shape) for shape in spec.shapes]}
        return ArtifactCache(spec.cache).get("engine", key, "engine.json", write, {})

    def tactics(self, artifact):
        return tuple(f"{name}: {tactic}" for name, tactic in json.loads(artifact.path.read_text())["tactics"].items())

    def opening(self, spec, artifact):
        engine = json.loads(artifact.path.read_text())
        yield "session", Simulated(engine, Costs(step_ms=0.0, gpu_ms=STEP_MS[engine["level"]]))


class Simulated(NullSession):
    def __init__(self, engine, costs):
        super().__init__("ok", costs)
        self.offset = int("".join(engine["tactics"].values()), 16) % 999983 * 1e-9

    def fetch(self):
        return super().fetch() + np.float32(self.offset)
"""


@pytest.fixture(scope="module")
def maquette(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for PYTHONPATH with the backend `maquette`."""
    folder = tmp_path_factory.mktemp("third party") / "backends" / "maquette_"
    folder.mkdir(parents=True)
    (folder / "description.py").write_text(DESCRIPTION)
    (folder / "maquette.py").write_text(MODULE)
    return folder.parents[1]


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(maquette: Path, tmp_path: Path) -> Run:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = ["suite=building", *QUICK, f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(maquette)}
        command = [sys.executable, "-m", "suites.run", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return command


def record_of(folder: Path) -> Record:
    (record,) = read_records(folder, "building")
    return record


def test_a_run_builds_each_variant_and_compares_the_engines(run: Run, tmp_path: Path) -> None:
    done = run("backend=maquette")
    assert done.returncode == 0, done.stderr
    assert "build 3 of 9: built again" in done.stderr
    (path,) = (tmp_path / "results").glob("*/records/building/*.json")
    data = json.loads(path.read_text())
    builds = data["scores"]["builds"]
    assert [(build["kind"], build["setting"]) for build in builds] == [
        (FIRST, ""), (MEASURED_AGAIN, ""), (BUILT_AGAIN, ""), (SAVED_TIMINGS, ""), (SAVED_TIMINGS, ""),
        (OPTION, "maquette.level=0"), (OPTION, "maquette.level=1"), (OPTION, "maquette.level=3"),
        ("profiles", "2 profiles"),
    ]  # fmt: skip
    first, measured, again, *saved = builds[:5]
    assert measured["plan"] == first["plan"]
    assert measured["other_tactics"] == 0
    assert (again["other_tactics"], again["output"] == first["output"]) == (3, False)
    for build in saved:
        assert (build["other_tactics"], build["output"], build["plan"]) == (0, first["output"], first["plan"])
    assert builds[7]["outcome"] == "unsupported"
    assert builds[7]["reason"] == "this builder has no level 3"
    assert "samples" not in builds[7]
    assert [build.get("profiles") for build in (first, builds[8])] == [1, 2]
    assert data["artifacts"]["built"]["sha256"] == first["plan"]
    assert [check["when"] for check in data["checks"]] == ["build 1"]
    # The engines of the builds are removed with the job.
    assert list((tmp_path / "cache").rglob("engine.json")) == []


def test_the_tables_have_a_row_for_each_build_and_the_advice(run: Run, tmp_path: Path) -> None:
    done = run("backend=maquette", "building.options=[level]")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").glob("*/tables/no-model/building.md")
    text = path.read_text()
    table = rows(text)
    assert [row["build"] for row in table][:3] == ["first", "measured again", "built again"]
    by_build = {row["build"]: row for row in table}
    assert by_build["maquette.level=0"]["to first"].startswith("+")
    assert by_build["saved timings"]["output"] == "same"
    assert "unsupported: this builder has no level 3" in text
    assert "The shortest build within 2% of the best latency: " in text
    assert "2 builds with the saved timings: latency within" in text
    assert "the tactics of the first build, the same output bits, the same file" in " ".join(text.split())
    assert "3 of 3 layers have other tactics than the first build, different output bits" in " ".join(text.split())
    assert "shortest within 2%" in done.stdout
    assert "maquette.level=0" in done.stdout
    record = record_of(tmp_path / "results")
    assert isinstance(record.result, BuildingResult)
    assert len(record.result.builds) == len(table)


def test_without_options_and_profiles_the_build_is_repeated(run: Run, tmp_path: Path) -> None:
    done = run("backend=maquette", "building.options=[none]", "building.profiles=[]", "building.repeats=2")
    assert done.returncode == 0, done.stderr
    result = record_of(tmp_path / "results").result
    assert isinstance(result, BuildingResult)
    assert [build.kind for build in result.builds] == [FIRST, MEASURED_AGAIN, BUILT_AGAIN, SAVED_TIMINGS, SAVED_TIMINGS]


def test_a_first_build_that_fails_fails_the_cell(run: Run, tmp_path: Path) -> None:
    done = run("backend=maquette", "maquette.level=3")
    record = record_of(tmp_path / "results")
    assert (record.outcome, record.reason) == ("unsupported", "this builder has no level 3")
    assert record.result is None or not record.result.builds  # type: ignore[attr-defined]
    assert "unsupported" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backend=null",), "backend=null has no build options to try; use backend=maquette or trt or trt_plugin"),
        (("backend=maquette", "building.options=[levle]"), "did you mean level?"),
        (("backend=maquette", "building.profiles=[4]"), "building.profiles=4 needs as many shapes"),
        (("backend=maquette", "building.profiles=[9]"), "building.profiles=9 must be between 1 and 8"),
        (("backend=maquette", "building.repeats=0"), "building.repeats=0 must be at least 1"),
        (("backend=maquette", "profiles=dynamic"), "building.profiles needs profiles=per_shape"),
        (("backend=maquette", "profiles=buckets"), "suite=building needs profiles=per_shape"),
    ],
)
def test_requests_that_cannot_be_built_are_refused(arguments: tuple[str, ...], says: str, run: Run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def engine(
    seconds: float, milliseconds: float, output: str = "a", tactics: tuple[str, ...] = ("x: 1", "y: 2")
) -> Engine:
    samples = (int(milliseconds * 1e6),)
    return Engine(seconds, 10, f"plan {output}", 1, samples, True, output, 1.0, tactics, len(tactics))


def result(*builds: Build) -> BuildingResult:
    together = joined([BuildingResult((build,)) for build in builds])
    assert isinstance(together, BuildingResult)
    return together


SWEPT = result(
    Build(FIRST, "", engine(30, 1.0)),
    Build(BUILT_AGAIN, "", engine(40, 1.1, "b", ("x: 1", "y: 3"))),
    Build(SAVED_TIMINGS, "", engine(5, 1.0)),
    Build(OPTION, "trt.optimization_level=0", engine(10, 2.0)),
    Build(OPTION, "trt.optimization_level=2", engine(20, 1.06)),
    Build(OPTION, "trt.optimization_level=5", engine(90, 1.04)),
)


def test_the_shortest_build_near_the_best_latency_is_advised() -> None:
    """Repeated builds count with their medians. Builds with saved timings are not compared."""
    assert [(choice.setting, choice.seconds) for choice in choices(SWEPT)] == [
        ("", 35), ("trt.optimization_level=0", 10), ("trt.optimization_level=2", 20), ("trt.optimization_level=5", 90)
    ]  # fmt: skip
    shortest, best = shortest_near_best(SWEPT)
    assert (shortest.setting, best.setting) == ("trt.optimization_level=2", "trt.optimization_level=5")
    slow = result(*SWEPT.builds[:4], Build(OPTION, "trt.optimization_level=2", engine(20, 1.09)))
    assert shortest_near_best(slow)[0].setting == ""


def test_there_is_no_advice_about_a_single_setting() -> None:
    repeated = result(*(build for build in SWEPT.builds if build.kind != OPTION))
    assert {choice.setting for choice in choices(repeated)} == {""}
    assert shortest_near_best(repeated) is None
    assert not any("shortest build" in sentence for sentence in sentences(repeated))
    assert not any("shortest" in row[-1] for row in rows_of(repeated))


def test_the_sentences_say_how_builds_differ() -> None:
    text = list(sentences(SWEPT))
    assert text[0] == (
        "The shortest build within 2% of the best latency: trt.optimization_level=2, 20.0 s and 1.06 ms. The best "
        "latency: trt.optimization_level=5, 90.0 s and 1.04 ms."
    )
    assert text[1] == "With the saved timings a build is 7.0 times as fast as without timings."
    assert text[2] == (
        "2 builds without timings: latency within 10.0%, up to 1 of 2 layers have other tactics than the first build, "
        "different output bits, different files."
    )


def test_tactics_are_compared_with_the_first_engine_and_kept_only_there() -> None:
    engines = [build.engine for build in SWEPT.builds if build.engine is not None]
    assert [one.other_tactics for one in engines] == [None, 1, 0, 0, 0, 0]
    assert engines[1].examples == ("y: 3",)
    assert [bool(one.tactics) for one in engines] == [True] + [False] * 5


def test_without_known_tactics_nothing_is_said_about_them() -> None:
    unknown = [replace(build, engine=engine(1, 1.0, tactics=())) for build in SWEPT.builds[:2]]
    compared = result(*unknown)
    assert "tactics" not in " ".join(sentences(compared))
    assert [row[COLUMNS.index("other tactics")] for row in rows_of(compared)] == ["", ""]
