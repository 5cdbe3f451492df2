"""The cache folder belongs to one user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backends.cache import ArtifactCache
from suites.asking.cache_folder import compiler_caches, user_cache
from suites.running.job_folders import new_job
from suites.schema.refusals import Refused

OWN = f"uid-{os.geteuid()}"


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
def test_only_its_user_can_write_a_new_cache(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            assert user_cache(str(tmp_path / "new" / "cache")) == tmp_path / "new" / "cache"
    finally:
        os.umask(before)
    assert not stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) & 0o022


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_that_others_can_write_has_a_cache_for_each_user(tmp_path: Path, mode: int) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    for _ in range(2):
        assert user_cache(str(tmp_path / "shared")) == tmp_path / "shared" / OWN


def test_a_sticky_folder_of_the_user_is_used_directly(tmp_path: Path) -> None:
    """An example is the root of a mounted tmpfs: other users cannot replace its files."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk").chmod(0o1777)
    assert user_cache(str(tmp_path / "disk")) == tmp_path / "disk"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
@pytest.mark.parametrize("name", ["kind", "jobs"])
def test_a_folder_of_another_user_in_a_cache_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.chown(tmp_path / name, 41001, 41001)
    with pytest.raises(PermissionError, match=r"belongs to another user \(uid 41001\)"):  # noqa: PT012
        if name == "jobs":
            new_job(tmp_path)
        else:
            ArtifactCache(tmp_path).get("kind", {}, "file", lambda path: None, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_the_cache_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    os.chown(tmp_path / "strange", 41001, 41001)
    assert user_cache(str(tmp_path / "strange")) == tmp_path / "strange" / OWN
    os.chown(tmp_path / "strange" / OWN, 41001, 41001)
    with pytest.raises(Refused, match=r"cannot be trusted: it belongs to another user \(uid 41001\)"):
        user_cache(str(tmp_path / "strange"))


@pytest.mark.parametrize("kind", ["link", "open", "file"])
def test_a_cache_that_another_user_created_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    own = tmp_path / "shared" / OWN
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        own.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        own.touch()
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(Refused, match="choose a folder of your own"):
        user_cache(str(tmp_path / "shared"))


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/cache", "", "\0", "x" * 300, "loop", "dangling/x"])
def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("/proc/nothing")
    with pytest.raises(Refused, match=r"^cache="):
        user_cache(name)


def test_a_cache_below_a_folder_that_was_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(Refused, match=r"cache=\.cache cannot be written"):
        user_cache(".cache")


def test_caches_of_compilers_are_private(tmp_path: Path) -> None:
    folder = compiler_caches(tmp_path)
    assert folder == tmp_path / f"compilers-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert compiler_caches(tmp_path) == folder
    folder.chmod(0o777)
    assert compiler_caches(tmp_path) is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert compiler_caches(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_compiled_kernels_of_another_user_are_not_used(tmp_path: Path) -> None:
    folder = compiler_caches(tmp_path)
    assert folder is not None
    os.chown(folder, 41001, 41001)
    assert compiler_caches(tmp_path) is None
