"""Backends are found by their folders, and a backend in another folder of PYTHONPATH needs no change of the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from test_architecture import closure

import backends
from backends import registry
from backends.config_key import key
from backends.registry import descriptions, option_groups
from backends.value_checks import Refused
from suites.schema.config import RunConfig
from suites.schema.run_schema import run_schema

QUICK = ("suite.seconds=0.02", "suite.warm_up_s=0.02", "batch=[2]", "sequence=[16]", "repeats=1")

DESCRIPTION = """
from dataclasses import dataclass

from backends.config_key import key
from backends.description import BackendDescription, SourceKind
from backends.options import BackendOptions
from backends.value_checks import at_least


@dataclass
class ToyOptions(BackendOptions):
    pause_ms: float = key(0.0, "Pause of each step of the toy.", in_help=True)
    colour: str = key("red", "Colour of the toy.", added_later=True)

    def __post_init__(self):
        at_least("toy.pause_ms", self.pause_ms, 0)


BACKENDS = (
    BackendDescription(
        name="toy",
        factory="backends.toy_.toy:Toy",
        source=SourceKind.none,
        devices=("cpu",),
        time_limit_s=300.0,
        options=ToyOptions,
        groups={"toy": ToyOptions},
    ),
)
"""

MODULE = """
from backends.base import Artifact, Backend
from backends.null_.null import Costs, NullSession


class Toy(Backend):
    distributions = ("numpy",)

    def check(self, spec):
        pass

    def build(self, spec, source):
        return Artifact(source.checkpoint, source.sha256, notes={"colour": spec.options.colour})

    def opening(self, spec, artifact):
        yield "session", NullSession("ok", Costs(step_ms=spec.options.pause_ms))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Return a folder for PYTHONPATH with the backend `toy`."""
    folder = tmp_path / "third party" / "backends" / "toy_"
    folder.mkdir(parents=True)
    (folder / "description.py").write_text(DESCRIPTION)
    (folder / "toy.py").write_text(MODULE)
    return folder.parents[1]


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "suites.run", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_backend_in_another_folder_runs_and_is_in_the_help(toy: Path, tmp_path: Path) -> None:
    done = run(
        toy, "backend=toy", "toy.pause_ms=0.5", *QUICK, f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("*toy*.json")
    record = json.loads(path.read_text())
    assert (record["cell"]["backend"], record["outcome"]) == ("toy", "ok")
    assert record["cell"]["options"]["pause_ms"] == 0.5
    assert "colour" not in record["cell"]["options"]
    assert record["artifacts"]["built"]["notes"] == {"colour": "red"}
    shown = run(toy, "--help").stdout
    assert "toy.pause_ms=0 " in shown
    assert "Pause of each step of the toy." in shown
    assert "torch_packed, toy, trt" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backend=toyy",), "there is no backend=toyy; did you mean toy?"),
        (("backend=toy", "toy.pause_ms=-1"), "toy.pause_ms=-1.0 must be at least 0"),
        (("backend=toy", "toy.pause=1"), "did you mean toy.pause_ms? (Pause of each step of the toy.)"),
    ],
)
def test_wrong_options_of_another_backend_are_refused(toy: Path, arguments: tuple[str, ...], says: str) -> None:
    done = run(toy, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_folder_without_a_description_is_refused_at_the_start(toy: Path) -> None:
    (toy / "backends" / "toy_" / "description.py").unlink()
    done = run(toy, "--help")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "toy_ has no description.py" in done.stderr


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path of a description of a third party that the registry reads next."""
    folder = tmp_path / "backends" / "other_"
    folder.mkdir(parents=True)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(folder.parent)])
    monkeypatch.delitem(sys.modules, "backends.other_", raising=False)
    monkeypatch.delitem(sys.modules, "backends.other_.description", raising=False)
    descriptions.cache_clear()
    run_schema.cache_clear()
    yield folder / "description.py"
    monkeypatch.undo()
    for name in ("backends.other_", "backends.other_.description"):
        sys.modules.pop(name, None)
    descriptions.cache_clear()
    run_schema.cache_clear()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module", "cannot be read: ModuleNotFoundError: No module named 'no_such_module'"),
        ("BACKENDS = (", "cannot be read: SyntaxError"),
        ("BACKENDS = ['toy']", "BACKENDS must be a tuple of BackendDescription"),
        ("", "BACKENDS must be a tuple of BackendDescription"),
        (DESCRIPTION.replace('name="toy"', 'name="ort"'), "backend ort is described in"),
        (DESCRIPTION.replace('"toy": ToyOptions', '"ort": ToyOptions'), "another backend describes the group ort too"),
        (
            DESCRIPTION.replace('"toy": ToyOptions', '"ort": ToyOptions').replace("colour", "fusion"),
            "another backend describes ort.fusion too",
        ),
        (
            DESCRIPTION.replace('"toy": ToyOptions', '"toy": ToyOptions, "doll": ToyOptions'),
            "doll.pause_ms and toy.pause_ms are the same option of backend toy",
        ),
    ],
)
def test_a_wrong_description_is_refused_with_its_file(text: str, says: str, described: Path) -> None:
    described.write_text(text)
    with pytest.raises(Refused) as refused:
        descriptions()
    assert says in str(refused.value)
    assert str(described) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_factory_that_cannot_be_imported_is_refused(described: Path) -> None:
    described.write_text(DESCRIPTION.replace("backends.toy_.toy:Toy", "backends.nowhere:Toy"))
    with pytest.raises(Refused, match=r"backend=toy: its factory backends\.nowhere:Toy cannot be imported"):
        registry.load_backend("toy")


def test_a_description_that_exits_is_refused_with_its_file(described: Path) -> None:
    described.write_text("raise SystemExit(7)")
    with pytest.raises(Refused, match="cannot be read: SystemExit: 7"):
        descriptions()


def test_a_group_with_the_name_of_a_key_is_refused(described: Path) -> None:
    described.write_text(DESCRIPTION.replace('"toy": ToyOptions', '"model": ToyOptions'))
    with pytest.raises(Refused, match="the group model, which is a key of the suite"):
        run_schema()


def test_folders_without_modules_are_not_backends(described: Path) -> None:
    (described.parent / "__pycache__").mkdir()
    assert "toy" not in descriptions()


def test_each_folder_of_this_project_is_described() -> None:
    inside = {path.parent.name for path in (ROOT / "backends").glob("*/*.py")} - set(registry.SHARED_FOLDERS)
    assert inside == {description.factory.split(".")[1] for description in descriptions().values()}
    assert list(descriptions()) == sorted(descriptions())


@pytest.mark.parametrize("folder", sorted({d.factory.split(".")[1] for d in descriptions().values()}))
def test_a_description_imports_the_standard_library_alone(folder: str) -> None:
    """Each worker and the help of each command read all descriptions."""
    assert closure(f"backends.{folder}.description")[1] <= {*sys.stdlib_module_names}


def test_each_option_is_shared_or_in_a_group_of_its_backend() -> None:
    for description in descriptions().values():
        grouped = {name for group in description.groups.values() for name in group.__dataclass_fields__}
        shared = set(RunConfig.__dataclass_fields__)
        assert set(description.options.__dataclass_fields__) <= grouped | shared, description.name


def test_the_schema_has_the_groups_of_all_backends() -> None:
    assert set(option_groups()) == {"faster_transformer", "null", "openvino", "ort", "plugin", "torch", "trt"}
    assert set(run_schema().__dataclass_fields__) - set(RunConfig.__dataclass_fields__) == {
        "interpreter", *option_groups()
    }  # fmt: skip


def test_an_option_that_was_added_later_is_marked() -> None:
    assert key(1, "Help.", added_later=True).metadata["added_later"]  # type: ignore[attr-defined]
