from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

from backends import cache
from backends.cache import EARLY_S, ArtifactCache
from backends.cache_files import locked, remove_partials

KEY = {"what": "test"}


def write(path: Path) -> Mapping[str, int]:
    path.write_text("payload")
    (path.parent / "beside.bin").write_bytes(b"more")
    return {"size": 7}


def never(path: Path) -> None:
    raise AssertionError("built again")


def test_the_same_key_is_built_once(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    built = cache.get("kind", KEY, "file", write, {"numpy": "2"})
    assert (built.path.read_text(), built.notes, built.versions) == ("payload", {"size": 7}, {"numpy": "2"})
    assert cache.get("kind", KEY, "file", never, {"numpy": "2"}) == built


@pytest.mark.parametrize(("key", "versions"), [({"what": "other"}, {"numpy": "2"}), (KEY, {"numpy": "3"})])
def test_another_key_or_version_is_another_artifact(
    tmp_path: Path, key: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    cache = ArtifactCache(tmp_path)
    first = cache.get("kind", KEY, "file", write, {"numpy": "2"})
    assert cache.get("kind", key, "file", write, versions).path != first.path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file", b"paYload"),
        ("file", b"payloa"),
        ("file", None),
        ("beside.bin", b"mor"),
        ("beside.bin", None),
        ("artifact.json", b'{"path": "fi'),
        ("artifact.json", b"null"),
        ("artifact.json", b"[]"),
        ("artifact.json", b'"text"'),
        ("artifact.json", b'{"key": {}, "files": []}'),
        ("artifact.json", b"[" * 100_000),
        ("artifact.json", b"\xff\xfe"),
        ("artifact.json", None),
    ],
)
def test_damage_is_detected_and_repaired(
    tmp_path: Path, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ArtifactCache(tmp_path)
    victim = cache.get("kind", KEY, "file", write, {}).path.parent / name
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    assert cache.get("kind", KEY, "file", write, {}).path.read_text() == "payload"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"cached kind {victim.parent.name} is damaged; building it again"


def test_a_payload_is_read_again_only_if_its_modification_time_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {})
    read: list[Path] = []
    monkeypatch.setattr("backends.cache.digest_of", lambda path: read.append(path) or entry.sha256)
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", never, {}) == entry
    assert read == []
    entry.path.touch()
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", never, {}) == entry
    assert read == [entry.path]


def test_an_artifact_is_found_by_the_digest_of_its_payload(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    built = cache.get("kind", KEY, "file", write, {"numpy": "2"})
    assert cache.find("kind", "file", built.sha256) == built
    assert cache.find("other", "file", built.sha256) is None
    assert cache.find("kind", "file", "0" * 64) is None
    built.path.write_text("changed")
    assert cache.find("kind", "file", built.sha256) is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ArtifactCache(tmp_path).get("kind", KEY, "file", fail, {})
    assert [path.suffix for path in (tmp_path / "kind").iterdir()] == [".lock"]
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.exists()


def in_place_of(entry: Path) -> dict[str, Callable[[], object]]:
    """Return objects that may exist under the name of an entry's folder."""
    return {
        "file": lambda: entry.write_text("no folder"),
        "link": lambda: entry.symlink_to(entry.parent),
        "dangling": lambda: entry.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(entry),
    }


@pytest.mark.parametrize("kind", in_place_of(Path()))
def test_an_entry_that_is_not_a_folder_is_replaced(tmp_path: Path, kind: str) -> None:
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.parent
    shutil.rmtree(entry)
    in_place_of(entry)[kind]()
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.read_text() == "payload"
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", never, {}).path.parent == entry


@pytest.mark.parametrize("replace", [Path.mkdir, lambda path: path.symlink_to("x"), os.mkfifo])
def test_a_lock_path_that_is_not_a_file_does_not_stop_a_build(
    tmp_path: Path, replace: Callable[[Path], object]
) -> None:
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.parent
    lock = entry.parent / f".{entry.name}.lock"
    lock.unlink()
    replace(lock)
    ArtifactCache(tmp_path).get("kind", KEY, "file", never, {})


def test_a_folder_named_artifact_json_counts_as_damage(tmp_path: Path) -> None:
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.parent
    (entry / "artifact.json").unlink()
    (entry / "artifact.json").mkdir()
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.read_text() == "payload"


def test_an_entry_of_another_key_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ArtifactCache(tmp_path)
    entry = cache.get("kind", KEY, "file", write, {}).path.parent
    other = cache.get("kind", {"what": "other"}, "file", lambda path: path.write_text("other") and None, {}).path.parent
    shutil.rmtree(entry)
    shutil.copytree(other, entry)
    assert cache.get("kind", KEY, "file", write, {}).path.read_text() == "payload"
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("part", [".", "file", "beside.bin", "artifact.json"])
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_an_entry_that_others_can_write_is_not_used(
    tmp_path: Path, part: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ArtifactCache(tmp_path)
    entry = cache.get("kind", KEY, "file", write, {}).path.parent
    (entry / part).chmod(mode)
    built: list[Path] = []
    assert cache.get("kind", KEY, "file", lambda path: built.append(path) or write(path), {}).path.exists()
    assert len(built) == 1
    assert "other users can write it; building it again" in caplog.text
    assert cache.get("kind", KEY, "file", never, {}).path.parent == entry


@pytest.mark.parametrize("part", [".", "file", "beside.bin", "artifact.json"])
def test_an_entry_of_another_user_is_not_used(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ArtifactCache(tmp_path)
    entry = cache.get("kind", KEY, "file", write, {}).path.parent
    lstat, strange = os.lstat, os.path.normpath(entry / part)

    def of_another(path: Any, **options: Any) -> os.stat_result:
        status = lstat(path, **options)
        if not options and os.path.normpath(path) == strange:
            return os.stat_result((*status[:4], 41001, *status[5:]))
        return status

    monkeypatch.setattr("backends.cache_files.os.lstat", of_another)
    built: list[Path] = []
    cache.get("kind", KEY, "file", lambda path: built.append(path) or write(path), {})
    assert len(built) == 1
    assert "belongs to another user (uid 41001)" in caplog.text


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0, 0o755, 0o644)])
def test_entries_have_the_permissions_of_the_umask_and_are_reused(
    tmp_path: Path, umask: int, folder: int, file: int
) -> None:
    def private(path: Path) -> None:
        path.write_text("as safetensors writes")
        path.chmod(0o600)

    before = os.umask(umask)
    try:
        entry = ArtifactCache(tmp_path / "cache").get("kind", KEY, "file", private, {}).path.parent
        ArtifactCache(tmp_path / "cache").get("kind", KEY, "file", never, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(entry.stat().st_mode) == folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in entry.iterdir()} == {file}


def test_entries_of_older_versions_are_still_used(tmp_path: Path) -> None:
    """Their folders were private, and their files had the permissions of the umask."""
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.parent
    entry.chmod(0o700)
    (entry / "file").chmod(0o664)
    ArtifactCache(tmp_path).get("kind", KEY, "file", never, {})


def test_partial_entries_of_killed_builders_are_removed(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    entry = cache.get("kind", KEY, "file", write, {}).path.parent
    dead = entry.parent / f".{'0' * 24}.abcdef"
    dead.mkdir()
    (dead / "model.onnx").write_text("half")
    alive = entry.parent / f".{'1' * 24}.abcdef"
    alive.mkdir()
    with locked(entry.parent / f".{'1' * 24}.lock"):
        remove_partials(tmp_path)
        assert (dead.exists(), alive.exists()) == (False, True)
    remove_partials(tmp_path)
    assert not alive.exists()
    cache.get("kind", KEY, "file", never, {})
    remove_partials(tmp_path / "missing")


def test_a_partial_entry_of_the_same_key_is_removed_when_it_is_built(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    entry = cache.get("kind", KEY, "file", write, {}).path.parent
    shutil.rmtree(entry)
    (entry.parent / f".{entry.name}.left").mkdir()
    cache.get("kind", KEY, "file", write, {})
    assert sorted(path.name for path in entry.parent.iterdir()) == [f".{entry.name}.lock", entry.name]


def test_two_simultaneous_processes_build_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from backends.cache import ArtifactCache\n"
        "def build(path):\n    time.sleep(0.5); path.write_text('x'); print('built', flush=True)\n"
        f"print(ArtifactCache(Path({str(tmp_path)!r})).get('kind', {{}}, 'file', build, {{}}).sha256)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate()[0].split() for process in started]
    assert sorted(len(output) for output in outputs) == [1, 2]
    assert outputs[0][-1] == outputs[1][-1]


def test_an_early_part_of_a_build_counts_for_its_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "time", SimpleNamespace(perf_counter=iter([1.0, 3.5]).__next__))

    def build(path: Path) -> Mapping[str, object]:
        path.write_text("engine")
        return {EARLY_S: 11.5}

    artifact = ArtifactCache(tmp_path).get("engine", {}, "engine.txt", build, {})
    assert (artifact.seconds, artifact.notes) == (14.0, {EARLY_S: 11.5})
