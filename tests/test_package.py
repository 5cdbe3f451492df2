"""An installation has all files of the checkout that it needs, and its metadata are correct."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import tomllib
from conftest import ROOT

from suites.records.suite_version import CODE, VERSION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
NO_DATA = ("__pycache__",)


def test_every_package_is_installed() -> None:
    folders = {path.parent.relative_to(ROOT) for top in CODE for path in (ROOT / top).rglob("*.py")}
    patterns = SETUPTOOLS["packages"]["find"]["include"]
    names = [".".join(folder.parts) for folder in folders]
    assert [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []


def test_every_data_file_is_installed() -> None:
    covered = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = {path for top in CODE for path in (ROOT / top).rglob("*") if path.is_file() and path.suffix != ".py"}
    assert {path for path in files if not set(NO_DATA) & set(path.parts)} == covered


def test_every_pattern_of_data_files_has_a_file() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        assert [pattern for pattern in patterns if not list((ROOT / package).glob(pattern))] == []


def test_data_files_are_found_as_resources_of_the_package() -> None:
    package = resources.files("suites")
    for name in ("sentences.txt", "statistics/process_noise.json", "conf/run.yaml", "conf/batches/accuracy.txt"):
        assert package.joinpath(name).is_file(), name


def test_code_outside_the_packages_is_not_needed() -> None:
    """Defaults of the configuration name only files inside the packages."""
    for file in (ROOT / "suites" / "conf").rglob("*.yaml"):
        for name in re.findall(r"^path: (\S+)", file.read_text(), re.MULTILINE):
            if name.strip("'\""):
                assert name.split("/")[0] in CODE, f"{file.name}: {name}"
                assert (ROOT / name).is_file(), f"{file.name}: {name}"


def test_the_licence_is_included_and_named() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    (name,) = PROJECT["project"]["license-files"]
    text = (ROOT / name).read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert not [line for line in PROJECT["project"].get("classifiers", []) if line.startswith("License ::")]


def test_all_files_have_the_same_version() -> None:
    assert PROJECT["project"]["version"] == VERSION
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [VERSION]
    assert re.findall(r"^license: (.*)$", citation, re.MULTILINE) == [PROJECT["project"]["license"]]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = headings[headings[0] == "Unreleased" :]
    assert released[0] == VERSION
    assert released == sorted(released, reverse=True)


def test_the_package_and_make_require_the_same_python() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert "(3, 11)" in (ROOT / "Makefile").read_text()
    # Workers of other interpreters run the same files on Python 3.10.
    assert PROJECT["tool"]["ruff"]["target-version"] == "py310"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"


def test_extras_in_the_documentation_exist() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert {"dev", "hub", "tensorrt"} <= extras
    texts = [*ROOT.glob("*.md"), *ROOT.glob("Dockerfile*"), ROOT / "Makefile", *(ROOT / "suites").rglob("*.py")]
    named = {name for path in texts for name in _extras(path)}
    assert named <= extras


def _extras(path: Path) -> set[str]:
    groups = re.findall(r"(?:['\"\s]\.|inference-suites)\[([a-z,]+)\]", path.read_text())
    return {name for names in groups for name in names.split(",")}
