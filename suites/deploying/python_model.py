"""A model of Triton's Python backend: the suite's own session behind model.py."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import backends
from backends.served_model.running_model import output_fields
from backends.served_model.served_facts import CODE, ServedFacts
from suites.deploying.model_config import Batching, ModelConfig, Tensor

MODEL = "backends.served_model.triton_model"

VERSION = "1"
"""Folder of the only version of a model."""


def python_config(name: str, facts: ServedFacts, batching: Batching | None, instances: int) -> ModelConfig:
    """Return the configuration of a model.

    Args:
        batching: None for one request at a time.
    """
    texts = ("text", "text_pair") if facts.tokenizes else ()
    ids = ("input_ids", "attention_mask", "token_type_ids")
    # Requests of different lengths share a batch: each keeps its own arrays, and model.py pads them.
    inputs = [Tensor(item, "TYPE_STRING", (1,), optional=True) for item in texts]
    inputs += [Tensor(item, "TYPE_INT32", (-1,), optional=True, ragged=True) for item in ids]
    per_token = facts.spec.output.per_token
    outputs = [Tensor(item, kind, (-1, size) if per_token else (size,)) for item, kind, size in output_fields(facts)]
    return ModelConfig(
        name=name,
        backend="python",
        platform="",
        file="",
        largest=facts.largest,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        batching=batching,
        instances=instances,
        gpu=facts.spec.device.kind == "cuda",
    )


def write_python_model(folder: Path, config: ModelConfig, facts: ServedFacts, copies: bool) -> Path:
    """Write config.pbtxt, model.py, served.json and the package backends; return the folder of the version.

    Args:
        folder: folder of the model.
        copies: whether the package is copied. Otherwise it is linked, for a server that ends with this process.
    """
    version = folder / VERSION
    version.mkdir(parents=True)
    spec = find_spec(MODEL)
    assert spec is not None
    assert spec.origin is not None
    shutil.copyfile(spec.origin, version / "model.py")
    facts.write(version)
    for number, root in enumerate(backends.__path__):
        target = version / CODE / str(number) / "backends"
        if copies:
            shutil.copytree(root, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            target.parent.mkdir(parents=True)
            target.symlink_to(Path(root).resolve())
    (folder / "config.pbtxt").write_text(config.text(), encoding="utf-8")
    return version
