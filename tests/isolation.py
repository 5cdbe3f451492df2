"""Gives a test run its own temporary folder and lock folder, one thread per library, and no network.

Import this before any module that reads the environment: numpy and torch read the number of threads when they are
imported. Child processes inherit the environment. Each pytest-xdist worker has a subfolder of the run's folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

XDIST_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def _own_folder() -> Path:
    if XDIST_WORKER:
        folder = Path(os.environ["SUITES_TEST_RUN"], XDIST_WORKER)
        folder.mkdir(exist_ok=True)
        return folder
    # pytest keeps the tmp_path folders of the last runs in its usual place, so that failures can be inspected.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix="inference-suites-tests-"))


FOLDER = _own_folder()
(FOLDER / "locks").mkdir(exist_ok=True)
tempfile.tempdir = None  # tempfile has read TMPDIR already
os.environ |= {
    "TMPDIR": str(FOLDER),
    "SUITES_LOCK_DIR": str(FOLDER / "locks"),
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # otherwise each process that compiles starts a pool that imports torch
    "SUITES_TEST_RUN": os.environ["SUITES_TEST_RUN"] if XDIST_WORKER else str(FOLDER),
}
# Otherwise each child process compiles all modules of the project again, which takes a tenth of its CPU time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def remove() -> None:
    """Delete the folder of the run. The process that created it calls this when all workers have ended."""
    if not XDIST_WORKER:
        shutil.rmtree(FOLDER, ignore_errors=True)
