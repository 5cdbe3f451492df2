"""The model's part of a request: its name, its configuration, and the digest that tells it from other models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.base import Unavailable
from backends.checkpoint_files import check_files, read_config, tokenizer_files
from backends.families import positions_of
from backends.identity import identity_of, tokenizer_identity
from suites.cell import short_digest
from suites.checks import Refused
from suites.choices import SourceKind, Weights
from suites.config import RunConfig, plain

NAME = r"[\w.-]+"
LONGEST_NAME = 100
"""Bytes of a name, which becomes part of file names."""

NO_MODEL = "none"
"""The model of a cell that runs none."""

UNKNOWN_POSITIONS = 1 << 30
"""Stands for the positions of a model whose config.json is not on this machine yet."""


def model_name(config: RunConfig) -> str:
    """`model.name` if it is given, else the name that conf/ has for the hub id, else that of the folder or hub id.

    Raises:
        Refused: the given name cannot be part of a file name.
    """
    given, model = config.model.name, config.model
    if given:
        if not re.fullmatch(NAME, given) or len(given.encode()) > LONGEST_NAME:
            raise Refused(
                f"model.name={given[:LONGEST_NAME]} would name a file; use letters, digits, '.', '_' and '-', "
                f"at most {LONGEST_NAME}"
            )
        if given == NO_MODEL:
            raise Refused(f"model.name={NO_MODEL} stands for cells without a model; choose another name")
        return given
    if model.path:
        return _file_name(_folder_name(Path(model.path).resolve()))
    return model.names.get(model.hub) or _file_name(model.hub or str(model.architecture.get("model_type", "")))


def _folder_name(folder: Path) -> str:
    """The name of a folder; of a snapshot in the hub's local cache, whose folder is named by a commit, the hub id."""
    hub = folder.parent.parent.name
    return hub.removeprefix("models--") if folder.parent.name == "snapshots" and "--" in hub else folder.name


def _file_name(text: str) -> str:
    """The last part of a hub id or folder with every character replaced that a file name should not have."""
    found = re.sub(r"[^\w.-]+", "-", re.split(r"/|--", text)[-1]).strip("-.")
    found = found.encode()[:LONGEST_NAME].decode(errors="ignore") or "model"
    return f"model-{found}" if found == NO_MODEL else found


def local_config(config: RunConfig) -> dict[str, Any]:
    """config.json of model.path, once the folder is known to be whole; {} without a folder.

    Raises:
        Refused: a file of the folder is missing, damaged or not readable.
    """
    if config.weights is Weights.random or not config.model.path:
        return {}
    folder = Path(config.model.path)
    try:
        check_files(folder)
        return read_config(folder)
    except Unavailable as reason:
        missing = str(reason).startswith("has no")
        advice = "; give a folder with config.json and model.safetensors, or weights=random for latency alone"
        raise Refused(f"model.path={folder}{' ' if missing else ': '}{reason}{advice if missing else ''}") from None


def positions(config: RunConfig, found: Mapping[str, Any]) -> int:
    """The longest sequence that the model takes, by config.json or, before there is one, by conf/.

    Raises:
        Refused: config.json does not say where positions begin.
    """
    model = config.model
    try:
        if found:
            return positions_of(found)
        if config.weights is Weights.random and "max_position_embeddings" in model.architecture:
            return positions_of(model.architecture)
    except ValueError as error:
        raise Refused(f"model.path={model.path}: {error}") from None
    own = config.weights is Weights.random or not model.names or model.hub in model.names
    return model.positions if own else UNKNOWN_POSITIONS


def model_job(config: RunConfig, cache: Path) -> dict[str, Any]:
    """The keys of a model for workers: those of its configuration, its folder, identity and origin as far as they are
    known; the identity of a hub id is known once it was located (suites/locating.py).

    Raises:
        Refused: weights, folder, architecture and tokenizer contradict one another.
    """
    random, model = config.weights is Weights.random, plain(asdict(config.model))
    path = str(Path(config.model.path).resolve()) if config.model.path else ""
    if random and path:
        raise Refused(f"weights=random makes weights up, and model.path={config.model.path} has some; leave one out")
    if random and not model["architecture"]:
        raise Refused(f"weights=random needs model.architecture, which model={model_name(config)} does not give")
    if not (random or path or model["hub"] or config.backend.source is SourceKind.none):
        raise Refused("model.hub= and model.path= are both empty; give one, or weights=random for latency alone")
    known = {"identity": _identity(Path(path), cache), "origin": "path"} if path else {}
    return {
        **model, "path": path, "tokenizer": _tokenizer(config), "weights": config.weights.name, "seed": config.seed,
        **known,
    }  # fmt: skip


def _identity(folder: Path, cache: Path) -> str:
    try:
        return identity_of(folder, cache)
    except OSError as error:
        name = Path(str(error.filename or folder)).name
        raise Refused(f"model.path={folder}: {name} cannot be read: {error.strerror}") from None


def _tokenizer(config: RunConfig) -> str:
    """The whole path of the folder that random weights borrow a tokenizer from; empty if they do not."""
    chosen = config.model.tokenizer
    if not chosen:
        return ""
    if config.weights is not Weights.random:
        raise Refused(f"model.tokenizer={chosen} is for weights=random; trained weights come with their own")
    if not tokenizer_files(Path(chosen)):
        raise Refused(f"model.tokenizer={chosen} has no tokenizer.json; give the folder of a checkpoint that has")
    return str(Path(chosen).resolve())


def borrowed(job: Mapping[str, Any]) -> dict[str, str]:
    """The digest of a borrowed tokenizer, for a cell; empty without one."""
    if not job["tokenizer"]:
        return {}
    try:
        return {"tokenizer": tokenizer_identity(Path(job["tokenizer"]))[:16]}
    except OSError as error:
        raise Refused(f"model.tokenizer={job['tokenizer']} cannot be read: {error.strerror}") from None


def model_version(config: RunConfig, job: Mapping[str, Any]) -> str:
    """What tells this model from another of its name: the architecture of random weights, the identity of a
    checkpoint. Nothing of a path gets into a cell."""
    if config.backend.source is SourceKind.none:
        return ""
    if config.weights is Weights.random:
        return short_digest(plain(config.model.architecture))
    return str(job.get("identity", ""))[:16]
