"""Suites of other projects: a folder below INFERENCE_SUITES_PATH runs, and a folder that is invalid is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TOY = {
    "suite": '''
"""How many tokens does each shape have?"""

from dataclasses import dataclass

from suites.suite import Question, SuiteDescription


@dataclass(frozen=True)
class ToyQuestion(Question):
    factor: int


SUITE = SuiteDescription(question=ToyQuestion, settings={"seconds": 0.25})
''',
    "request": """
from suites.asking.suite_request import SuiteRequest
from suites.toy.suite import ToyQuestion


def suite_request(context):
    return SuiteRequest(context.shapes, context.shapes, ToyQuestion(3), options={"factor": 3})
""",
    "inputs": """
from suites.running.null_inputs import null_batches


def prepare_null(job):
    assert job.question.factor == 3
    return null_batches(job.spec.cache, job.spec.shapes)
""",
    "measure": """
from suites.records.facts import Facts
from suites.running.job import Measured
from suites.toy.result import ToyResult


def measure(run, question):
    steps = {}
    with run.session(steps):
        run.progress("counting")
    sizes = {str(shape): run.arrays[f"{shape}/input_ids"].size * question.factor for shape in run.shapes}
    return Measured(facts=Facts().opened(steps), result=ToyResult(tokens=sizes))
""",
    "result": """
from collections.abc import Mapping
from dataclasses import dataclass

from suites.suite import Result


@dataclass(frozen=True)
class ToyResult(Result):
    tokens: Mapping[str, int]


RESULT = ToyResult
""",
    "tables": """
from suites.tables.table import Table


def toy_table(records):
    return " ".join(["# Toy", *(f"| {record.cell.id} |" for record in records)])


TABLES = {"toy": Table("suites.toy.tables:toy_table")}
""",
}


def write_suite(folder: Path, name: str = "toy", **files: str) -> Path:
    """Write a suite to folder/suites/NAME; keywords replace the contents of files. Return `folder`."""
    own = folder / "suites" / name
    own.mkdir(parents=True)
    for file, text in {**TOY, **files}.items():
        (own / f"{file}.py").write_text(text)
    return folder


def run(tmp_path: Path, path: str, *arguments: str, module: str = "suites.run") -> subprocess.CompletedProcess[str]:
    """Run a command in `tmp_path` with this INFERENCE_SUITES_PATH."""
    environment = {**os.environ, "INFERENCE_SUITES_PATH": path, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_a_suite_in_another_folder_runs_without_any_change_of_the_project(tmp_path: Path) -> None:
    path = str(write_suite(tmp_path / "other"))
    words = ["suite=toy", "backend=null", "batch=[1,2]", "sequence=[16]", "results=results", "cache=cache"]
    done = run(tmp_path, path, *words)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "results").glob("*/records/toy/*.json")
    record = json.loads(file.read_text())
    assert (record["outcome"], record["reason"], record["cell"]["suite"]) == ("ok", "", "toy")
    assert record["scores"] == {"tokens": {"1x16": 48, "2x16": 96}}
    assert record["cell"]["options"]["factor"] == 3
    assert record["settings"]["seconds"] == 0.25
    assert record["facts"]["open_ns"] > 0
    (table,) = (tmp_path / "results").glob("*/tables/no-model/toy.md")
    assert f"| {file.stem} |" in table.read_text()
    reused = run(tmp_path, path, *words)
    assert reused.returncode == 0, reused.stderr
    assert "rerun=true measures again" in reused.stderr
    # Workers run in another folder, and a relative path still leads to the suite.
    relative = run(tmp_path, "other", *words, "rerun=true")
    assert relative.returncode == 0, relative.stderr
    # A record can be read where the suite is missing.
    report = run(tmp_path, "", str(tmp_path / "results"), module="suites.report")
    assert report.returncode == 0, report.stderr


def test_the_help_lists_a_suite_in_another_folder(tmp_path: Path) -> None:
    shown = run(tmp_path, str(write_suite(tmp_path / "other")), "--help")
    assert shown.returncode == 0, shown.stderr
    names = "accuracy, alignment, building, ceilings, kernels, latency, launch, layers, limits, serving, switching, toy"
    assert f" suite {names}, tritonserver " in " ".join(shown.stdout.split())
    misspelt = run(tmp_path, str(tmp_path / "other"), "suite=toi", "backend=null")
    assert misspelt.returncode == 2
    assert "did you mean toy" in misspelt.stderr


@pytest.mark.parametrize("module", ["suites.run", "suites.search", "suites.batch"])
def test_a_suite_without_a_description_is_refused_with_its_file(module: str, tmp_path: Path) -> None:
    path = write_suite(tmp_path / "other", suite="SUITES = 1\n")
    (tmp_path / "lines.txt").write_text("suite=toy backend=null\n")
    arguments = [str(tmp_path / "lines.txt")] if module == "suites.batch" else ["backend=null"]
    done = run(tmp_path, str(path), *arguments, module=module)
    assert done.returncode == 2
    file = path / "suites" / "toy" / "suite.py"
    assert done.stderr == f"refused: {file} must define SUITE, a SuiteDescription\n"


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "not python"])
def test_a_suite_that_cannot_be_imported_is_refused_with_its_file(text: str, tmp_path: Path) -> None:
    done = run(tmp_path, str(write_suite(tmp_path / "other", suite=text)), "suite=toy", "backend=null")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "suites/toy/suite.py cannot be read: " in done.stderr


def test_a_suite_that_is_defined_twice_is_refused_with_both_files(tmp_path: Path) -> None:
    folders = [write_suite(tmp_path / name) for name in ("first", "second")]
    first, second = (folder / "suites" / "toy" / "suite.py" for folder in folders)
    for arguments in (["backend=null"], ["--help"]):
        done = run(tmp_path, os.pathsep.join(map(str, folders)), *arguments)
        assert done.returncode == 2
        assert done.stderr == f"refused: {second}: the suite toy is already defined in {first}\n"
    own = write_suite(tmp_path / "third", "latency")
    done = run(tmp_path, str(own), "backend=null")
    assert done.returncode == 2
    assert f"{own / 'suites' / 'latency' / 'suite.py'}: the suite latency is already defined in" in done.stderr


@pytest.mark.parametrize("file", ["request", "measure"])
def test_a_suite_without_one_of_its_files_is_refused_or_fails_with_its_name(file: str, tmp_path: Path) -> None:
    path = write_suite(tmp_path / "other")
    (path / "suites" / "toy" / f"{file}.py").unlink()
    folders = [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
    done = run(tmp_path, str(path), "suite=toy", "backend=null", "batch=[1]", "sequence=[16]", *folders)
    assert done.returncode == (2 if file == "request" else 1)
    assert f"suites/toy has no {file}.py" in done.stderr
