"""What several tests stand on: a command line in a folder of its own, a tiny model, and null-backend jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from backends.base import Device
from backends.cache import ArtifactCache
from backends.null import Costs
from suites.cell import Cell
from suites.record import Measurement, Record

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / "conf" / "interpreter" / "local.yaml"
PYTHON_WITH_TENSORRT = os.environ.get("SUITES_TRT_PYTHON") or (
    OmegaConf.load(LOCAL).get("trt", "") if LOCAL.exists() else ""
)
"""The interpreter of TensorRT, where there is one: as a run would find it."""
TINY = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
TINY_MODELS = {
    "bert": {"model_type": "bert", **TINY},
    "roberta": {
        "model_type": "roberta",
        "vocab_size": 500,
        "type_vocab_size": 1,
        "max_position_embeddings": 514,
        **TINY,
    },
    "distilbert": {"model_type": "distilbert", "dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128},
    "electra": {"model_type": "electra", "embedding_size": 32, **TINY},
}

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `python -m suites.run ARGS` with results and cache under the test's own folder."""

    def run(*arguments: str, folders: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        own = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}") if folders else ()
        return subprocess.run(
            [sys.executable, "-m", "suites.run", *arguments, *own],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    return ArtifactCache(tmp_path_factory.mktemp("shared-cache"))


@pytest.fixture(scope="session")
def tiny(shared_cache: ArtifactCache) -> Callable[[str], tuple[Path, str]]:
    """Folder and digest of a random two-layer checkpoint of a family."""
    from backends.checkpoint import locate

    def make(family: str) -> tuple[Path, str]:
        return locate({"weights": "random", "seed": 0, "architecture": TINY_MODELS[family]}, shared_cache)

    return make


@pytest.fixture
def null_job(tmp_path: Path) -> dict[str, Any]:
    """A job for any stage of the null backend, at one shape."""
    return {
        "backend": "null",
        "source": "none",
        "precision": "fp32",
        "device": asdict(Device()),
        "shapes": [[2, 16]],
        "cuda_graph": False,
        "cache": str(tmp_path / "cache"),
        "options": {"behaviour": "ok", **asdict(Costs(step_ms=0.1))},
    }


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """A record of one shape with known samples; keywords replace its cell's or its own fields."""

    def make(machine: str = "gpu-a", samples: tuple[int, ...] = (1_000_000,) * 20, **changes: Any) -> Record:
        fields: dict[str, Any] = {
            "suite": "latency", "model": "tiny", "weights": "random (seed 0)", "model_version": "", "backend": "null",
            "release": "null 1.0", "precision": "fp32", "device": "cuda", "shapes": ((2, 16),),
            "lengths": {"distribution": "full", "tokens": "auto"}, "options": {"cuda_graph": True},
        }  # fmt: skip
        cell = Cell(**{name: changes.pop(name, value) for name, value in fields.items()})
        window = ((0, sum(samples), len(samples)),)
        base: dict[str, Any] = {
            "cell": cell,
            "outcome": "ok",
            "reason": "",
            "environment": {"machine": machine, "gpu": machine.upper(), "driver": "1.2", "uuid": "GPU-0"},
            "measurements": tuple(
                Measurement(phase, 2, 16, graph, tuple(s // (2 if graph else 1) for s in samples), window, True)
                for phase in ("gpu", "latency", "end_to_end", "enqueue", "sustained")
                for graph in (False, True)
            ),
            "checks": tuple(
                {"batch": 2, "sequence": 16, "cuda_graph": graph, "nonfinite": 0, "cosine": 0.99998, "problem": ""}
                for graph in (False, True)
            ),
            "artifacts": {"inputs": {"notes": {"tokens": "random", "shapes": {"2x16": {"tokens": 32, "cut": 0}}}}},
        }
        return Record(**{**base, **changes})

    return make
