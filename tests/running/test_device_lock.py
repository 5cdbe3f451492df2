"""The lock of a device: all users use the same file, even if another object has its name."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suites.running.device_lock import CANDIDATES, lock_device, lock_folder
from suites.schema.refusals import Refused


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SUITES_LOCK_DIR", str(tmp_path / "locks"))
    before = os.umask(0o022)
    yield tmp_path / "locks"
    os.umask(before)


def locks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def never() -> None:
    raise AssertionError("the lock was free")


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_all_users_can_open_the_lock_with_any_umask(folder: Path, umask: int) -> None:
    folder.mkdir()
    os.umask(umask)
    with lock_device("cpu", never):
        pass
    assert locks(folder) == ["inference-suites-cpu.lock"]
    assert stat.S_IMODE((folder / "inference-suites-cpu.lock").stat().st_mode) == 0o666


@pytest.mark.parametrize(("first", "second", "waits"), [(False, False, True), (False, True, True), (True, True, False)])
def test_a_measurement_is_exclusive_and_other_work_shares_the_device(first: bool, second: bool, waits: bool) -> None:
    """flock(2) applies to each open file, so two lock holders in one process exclude each other as two processes do."""
    waited: list[bool] = []

    class Waited(Exception):
        pass

    def on_wait() -> None:
        waited.append(True)
        raise Waited

    with lock_device("cpu", never, shared=first):
        try:
            with lock_device("cpu", on_wait, shared=second):
                pass
        except Waited:
            pass
    assert waited == [True] * waits
    with lock_device("cpu", never):
        pass


def test_each_device_has_its_own_lock() -> None:
    with lock_device("GPU-a", never), lock_device("GPU-b", never):
        pass


def obstacles() -> dict[str, Callable[[Path], object]]:
    return {
        "folder": lambda path: path.mkdir(),
        "fifo": lambda path: os.mkfifo(path, 0o666),
        "link": lambda path: path.symlink_to("elsewhere"),
        "loop": lambda path: path.symlink_to(path),
        "private": lambda path: path.touch(0o600),
    }


@pytest.mark.parametrize("kind", obstacles())
def test_the_next_name_is_used_if_the_first_is_blocked(folder: Path, kind: str) -> None:
    folder.mkdir()
    obstacles()[kind](folder / "inference-suites-cpu.lock")
    with lock_device("cpu", never):
        pass
    assert "inference-suites-cpu.1.lock" in locks(folder)
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o666])
def test_a_lock_file_of_another_user_is_used_if_it_can_be_read(folder: Path, mode: int) -> None:
    folder.mkdir()
    (folder / "inference-suites-cpu.lock").touch()
    (folder / "inference-suites-cpu.lock").chmod(mode)
    with lock_device("cpu", never):
        pass
    assert locks(folder) == ["inference-suites-cpu.lock"]


def test_a_folder_with_all_names_blocked_is_refused_in_one_line(folder: Path) -> None:
    folder.mkdir()
    for number in range(CANDIDATES):
        (folder / f"inference-suites-cpu{f'.{number}' if number else ''}.lock").mkdir()
    with pytest.raises(Refused, match="set SUITES_LOCK_DIR to a folder that all users"), lock_device("cpu", never):
        pass


def test_a_folder_that_cannot_be_created_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUITES_LOCK_DIR", str(tmp_path / "file" / "locks"))
    with pytest.raises(Refused, match=r"SUITES_LOCK_DIR=.* cannot be created"), lock_device("cpu", never):
        pass


def test_without_the_variable_the_folder_of_the_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITES_LOCK_DIR")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert lock_folder() == Path("/tmp")


def test_a_lock_is_taken_again_if_its_file_was_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock, descriptors = folder / "inference-suites-cpu.lock", fcntl.flock, []

    def removing(descriptor: int, mode: int) -> None:
        if not descriptors:
            path.unlink()
        descriptors.append(descriptor)
        flock(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", removing)
    with lock_device("cpu", never):
        assert path.exists()
    assert len(descriptors) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become other users")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_wait_for_each_other(tmp_path_factory: pytest.TempPathFactory, umask: int) -> None:
    """The first user creates and locks the file. The second user waits for the lock, and then gets it."""
    folder = Path(f"/tmp/suites-test-locks-{os.getpid()}-{umask}")
    folder.mkdir()
    folder.chmod(0o1777)

    def as_user(user: int, work: Callable[[], int]) -> int:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.umask(umask)
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                os.environ["SUITES_LOCK_DIR"] = str(folder)
                status = work()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def free() -> int:
        with lock_device("cpu", never):
            return 0

    def waits() -> int:
        class Waited(Exception):
            pass

        def on_wait() -> None:
            raise Waited

        try:
            with lock_device("cpu", on_wait):
                return 1
        except Waited:
            return 0

    try:
        assert as_user(41001, free) == 0
        descriptor = os.open(folder / "inference-suites-cpu.lock", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert as_user(41002, waits) == 0
        os.close(descriptor)
        assert as_user(41002, free) == 0
        assert locks(folder) == ["inference-suites-cpu.lock"]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
