"""The lock of a device: all users use the same file, even if another object has its name."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suites.root import ROOT
from suites.running.device_lock import CANDIDATES, lock_device, lock_folder
from suites.schema.refusals import Refused

FILES = ["inference-suites-cpu.lock", "inference-suites-cpu.turn.lock"]


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
    assert locks(folder) == FILES
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in FILES] == [0o666, 0o666]


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
@pytest.mark.parametrize("name", ["inference-suites-cpu", "inference-suites-cpu.turn"])
def test_the_next_name_is_used_if_the_first_is_blocked(folder: Path, kind: str, name: str) -> None:
    folder.mkdir()
    obstacles()[kind](folder / f"{name}.lock")
    with lock_device("cpu", never):
        pass
    assert f"{name}.1.lock" in locks(folder)
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o666])
def test_a_lock_file_of_another_user_is_used_if_it_can_be_read(folder: Path, mode: int) -> None:
    folder.mkdir()
    for name in FILES:
        (folder / name).touch()
        (folder / name).chmod(mode)
    with lock_device("cpu", never):
        pass
    assert locks(folder) == FILES


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


@pytest.mark.parametrize("name", FILES)
def test_a_lock_is_taken_again_if_its_file_was_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, flock, removed, taken = folder / name, fcntl.flock, [], []

    def removing(descriptor: int, mode: int) -> None:
        if not removed and path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            path.unlink()
            removed.append(descriptor)
        taken.append(descriptor)
        flock(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", removing)
    with lock_device("cpu", never):
        assert path.exists()
    assert (len(removed), len(taken)) == (1, 3)


class Run:
    """Another process that takes the lock, says what happens, and releases the lock when it is told to."""

    SCRIPT = """
import sys
from suites.running.device_lock import lock_device
with lock_device("cpu", lambda: print("waits", flush=True), shared=sys.argv[1] == "shared"):
    print("holds", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

    def __init__(self, mode: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def says(self) -> str:
        """Return the next word; empty if the process ended without one."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.says()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def started(mode: str) -> Run:
        runs.append(Run(mode))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


def test_a_measurement_that_waits_is_before_a_build_that_starts_later(start: Callable[[str], Run]) -> None:
    first = start("shared")
    assert first.says() == "holds"
    measurement = start("alone")
    assert measurement.says() == "waits"
    later = start("shared")
    assert later.says() == "waits"
    assert first.release() == "released"
    assert measurement.says() == "holds"
    assert measurement.release() == "released"
    assert later.says() == "holds"


def test_builds_share_the_device_before_and_after_a_measurement_waits(start: Callable[[str], Run]) -> None:
    before = []
    for _ in range(2):
        before.append(start("shared"))
        assert before[-1].says() == "holds"
    measurement = start("alone")
    assert measurement.says() == "waits"
    after = [start("shared"), start("shared")]
    assert [run.says() for run in after] == ["waits", "waits"]
    assert [run.release() for run in before] == ["released", "released"]
    assert measurement.says() == "holds"
    assert measurement.release() == "released"
    assert [run.says() for run in after] == ["holds", "holds"]


def test_a_killed_run_leaves_the_lock_and_the_turn_free(folder: Path, start: Callable[[str], Run]) -> None:
    first = start("shared")
    assert first.says() == "holds"
    waiting = start("alone")
    assert waiting.says() == "waits"
    waiting.kill()
    with lock_device("cpu", never, shared=True):
        pass
    first.kill()
    with lock_device("cpu", never):
        pass
    assert locks(folder) == FILES


def test_only_main_processes_take_locks() -> None:
    """A process must not take the lock of a device again while its parent holds it. No code of a worker takes it."""
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in ("suites", "backends")
        for path in (ROOT / folder).rglob("*.py")
        if "suites.running.device_lock" in path.read_text(encoding="utf-8")
    }
    assert users == {"suites/exporting/export_cell.py", "suites/hydra_jobs/cell_job.py", "suites/running/pipeline.py"}


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
        assert locks(folder) == FILES
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
