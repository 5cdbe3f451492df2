"""The version of the suite in a record, and the records that must be measured again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomllib
from conftest import ROOT

from suites.accuracy.tables import accuracy_tables
from suites.latency.tables import latency_tables
from suites.records import suite_version
from suites.records.parts import Maker
from suites.records.record import Record
from suites.running.reuse import another_device, reusable
from suites.suite import Judging

GIT = ["git", "-c", "user.name=n", "-c", "user.email=e"]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    suite_version.maker.cache_clear()
    yield
    suite_version.maker.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a git checkout of one file that acts as the checkout of the suite."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "a.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(suite_version, "ROOT", tmp_path.resolve())
    return tmp_path


def test_the_version_is_the_version_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == suite_version.VERSION


def test_a_checkout_has_a_commit_and_may_be_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    clean = Maker(suite_version.VERSION, head.stdout.strip(), False)
    assert suite_version.maker() == clean
    (checkout / "results").write_text("not code")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    suite_version.maker.cache_clear()
    assert suite_version.maker() == clean
    (checkout / "suites" / "a.py").write_text("2")
    suite_version.maker.cache_clear()
    assert suite_version.maker() == replace(clean, dirty=True)


@pytest.mark.parametrize("case", ["no git", "a folder in another checkout", "git refuses"])
def test_a_copy_without_its_own_checkout_has_no_commit(
    case: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "no git":
        monkeypatch.setenv("PATH", "/nowhere")
    elif case == "git refuses":
        monkeypatch.setattr(suite_version, "_git", lambda *_: None)
    else:
        monkeypatch.setattr(suite_version, "ROOT", checkout.resolve() / "suites")
    assert suite_version.maker() == Maker(suite_version.VERSION, "", False)


@pytest.mark.parametrize(
    ("noted", "commit"),
    [
        ('{"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "' + "a" * 40 + '"}}', "a" * 40),
        ('{"url": "file:///x", "dir_info": {}}', ""),
        ("no JSON", ""),
        ("[]", ""),
        (None, ""),
    ],
)
def test_a_copy_installed_by_pip_has_the_commit_that_pip_recorded(
    noted: str | None, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "inference_suites-0.2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: inference-suites\nVersion: 0.2.0\n")
    if noted is not None:
        (folder / "direct_url.json").write_text(noted)
        (folder / "RECORD").write_text(f"{folder.name}/METADATA,,\n{folder.name}/direct_url.json,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(suite_version, "ROOT", tmp_path.resolve())
    assert suite_version.maker() == Maker(suite_version.VERSION, commit, False)
    monkeypatch.setattr(suite_version, "ROOT", tmp_path.resolve() / "elsewhere")
    suite_version.maker.cache_clear()
    assert suite_version.maker().commit == ""


@pytest.mark.parametrize(
    ("suite", "harness", "scoring", "again"),
    [
        ("latency", suite_version.HARNESS, suite_version.SCORING, False),
        ("latency", suite_version.HARNESS - 1, suite_version.SCORING, True),
        ("latency", suite_version.HARNESS, suite_version.SCORING - 1, False),
        ("switching", suite_version.HARNESS - 1, suite_version.SCORING, True),
        ("accuracy", suite_version.HARNESS - 1, suite_version.SCORING, False),
        ("accuracy", suite_version.HARNESS, suite_version.SCORING - 1, True),
        ("layers", suite_version.HARNESS, suite_version.SCORING - 1, True),
    ],
)
def test_a_record_is_reused_if_its_figures_would_be_the_same(
    suite: str, harness: int, scoring: int, again: bool, make_record: Callable[..., Record]
) -> None:
    machine = SimpleNamespace(description={"uuid": "GPU-0"})
    request: Any = SimpleNamespace(machine=machine, judging=Judging("sentences", {}, 0.01, 0.05))
    record = make_record(suite=suite, harness=harness, scoring=scoring)
    assert reusable(record, request) != again
    other = replace(record, environment=replace(record.environment, uuid="GPU-1"))
    assert another_device(other, request)
    assert not reusable(other, request)


def test_a_table_shows_different_devices_and_suite_versions(make_record: Callable[..., Record]) -> None:
    record = make_record(harness=2, maker={"version": "0.1.0", "commit": "a" * 40, "dirty": True})
    assert "Measured on" not in latency_tables([record])
    assert "Made by" not in latency_tables([record])
    environment = replace(record.environment, uuid="GPU-1")
    other = make_record(precision="fp16", environment=environment)
    records = [record, other, make_record(precision="bf16", harness=2, maker=record.maker)]
    text = latency_tables(records).replace("\n\n", "|").replace("\n", " ")
    assert "|Measured on 2 devices of this name: GPU-0 (2 records), GPU-1 (1 record).|" in text
    made = "0.1.0 aaaaaaaaaaaa with uncommitted changes (harness 2, scoring 1) (2 records)"
    assert f"|Made by 2 versions of the suite: {made}, unknown version (harness 1, scoring 1) (1 record).|" in text


def test_rows_with_different_harness_versions_are_marked(make_record: Callable[..., Record]) -> None:
    rows = latency_tables([make_record(harness=2), make_record(options={"x": "y"})]).splitlines()
    assert sum("harness=1" in row for row in rows) == sum("harness=2" in row for row in rows) == 1


def test_devices_with_similar_identities_have_different_names(make_record: Callable[..., Record]) -> None:
    lengths = {"distribution": "texts", "tokens": "text", "task": "stsb"}
    records = [
        make_record(suite="accuracy", lengths=lengths, precision=precision, environment={
            "machine": "gpu-a", "gpu": "A", "driver": "1", "uuid": f"GPU-0123456789-{precision}"})
        for precision in ("fp32", "fp16")
    ]  # fmt: skip
    text = accuracy_tables(records)
    assert "GPU-0123456789-fp16 (1 record), GPU-0123456789-fp32 (1 record)" in text


def test_git_does_not_run_in_the_folder_of_another_user() -> None:
    """Git itself refuses such a folder. This test checks that the refusal gives no traceback."""
    assert os.environ.get("GIT_DIR") is None
    assert suite_version._git("no-such-command") is None


@pytest.mark.parametrize(
    ("given", "commit", "dirty"), [("0123abc", "0123abc", False), ("0123abcdef-dirty", "0123abcdef", True)]
)
def test_a_copy_without_a_repository_gets_its_commit_from_the_environment(
    given: str, commit: str, dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITES_COMMIT", given)
    assert suite_version.maker() == Maker(suite_version.VERSION, commit, dirty)


def test_an_invalid_commit_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITES_COMMIT", "main; rm")
    assert suite_version.maker().commit != "main; rm"
