"""Code of models is imported without packages that no encoder needs, and these can be used afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

LOAD = """
import sys
from pathlib import Path

from backends.model.checkpoint import load_encoder

load_encoder(Path(sys.argv[1]))
print(*sorted({"torchao", "scipy"} & sys.modules.keys()))
import scipy.optimize
import transformers

print(transformers.utils.is_scipy_available())
"""


@pytest.mark.skipif(not find_spec("scipy"), reason="scipy is not installed")
def test_an_encoder_is_loaded_without_torchao_and_scipy(tiny: Callable[[str], tuple[Path, str]]) -> None:
    folder, _ = tiny("bert")
    command = [sys.executable, "-c", LOAD, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines() == ["", "True"]
