"""Model of a request: its name, its configuration, and the digest that distinguishes it from other models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from backends.base import Unavailable
from backends.config_key import to_json_types
from backends.description import SourceKind
from backends.model.checkpoint_files import check_files, read_config, tokenizer_files
from backends.model.families import positions_of
from backends.model.identity import identity_of, tokenizer_identity
from backends.model.reference import ModelReference
from backends.quantization_options import QuantizationOptions
from backends.registry import describe
from suites.records.cell import short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Weights
from suites.schema.refusals import Refused

NAME = r"[\w.-]+"
LONGEST_NAME = 100
"""Longest name in bytes. Names become parts of file names."""

NO_MODEL = "none"
"""Model name of a cell that runs no model."""

UNKNOWN_POSITIONS = 1 << 30
"""Number of positions of a model whose config.json is not on this machine yet."""


def model_name(config: RunConfig) -> str:
    """Return `model.name` if it is set, else the name in conf/ for the hub id, else the name of the folder or hub id.

    Raises:
        Refused: `model.name` cannot be part of a file name.
    """
    given, model = config.model.name, config.model
    if given:
        if not re.fullmatch(NAME, given) or len(given.encode()) > LONGEST_NAME:
            raise Refused(
                f"model.name={given[:LONGEST_NAME]} cannot be part of a file name; use letters, digits, '.', '_' and "
                f"'-', at most {LONGEST_NAME} bytes"
            )
        if given == NO_MODEL:
            raise Refused(f"model.name={NO_MODEL} is the name for cells without a model; choose another name")
        return given
    if model.path:
        return _file_name(_folder_name(Path(model.path).resolve()))
    return model.names.get(model.hub) or _file_name(model.hub or str(model.architecture.get("model_type", "")))


def _folder_name(folder: Path) -> str:
    """Return the name of a folder. For a snapshot in the hub's local cache, return the hub id instead of the commit."""
    hub = folder.parent.parent.name
    return hub.removeprefix("models--") if folder.parent.name == "snapshots" and "--" in hub else folder.name


def _file_name(text: str) -> str:
    """Return the last part of a hub id or folder. Characters that are not suitable for file names are replaced."""
    name = re.sub(r"[^\w.-]+", "-", re.split(r"/|--", text)[-1]).strip("-.")
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore") or "model"
    return f"model-{name}" if name == NO_MODEL else name


def local_config(config: RunConfig) -> dict[str, object]:
    """Check the folder model.path and return its config.json. Return {} if there is no folder.

    Raises:
        Refused: A file of the folder is missing, damaged or not readable.
    """
    if config.weights is Weights.random or not config.model.path:
        return {}
    folder = Path(config.model.path)
    try:
        check_files(folder)
        return read_config(folder)
    except Unavailable as reason:
        missing = str(reason).startswith("has no")
        advice = "; give a folder with config.json and model.safetensors, or set weights=random for latency only"
        raise Refused(f"model.path={folder}{' ' if missing else ': '}{reason}{advice if missing else ''}") from None


def positions(config: RunConfig, checkpoint_config: Mapping[str, object]) -> int:
    """Return the longest sequence of the model in tokens, from config.json, or from conf/ if config.json is missing.

    Raises:
        Refused: config.json does not have the first position.
    """
    model = config.model
    try:
        if checkpoint_config:
            return positions_of(checkpoint_config)
        if config.weights is Weights.random and "model_type" in model.architecture:
            return positions_of(model.architecture)
    except ValueError as error:
        raise Refused(f"{f'model.path={model.path}' if model.path else 'model.architecture'}: {error}") from None
    known_model = config.weights is Weights.random or not model.names or model.hub in model.names
    return model.positions if known_model else UNKNOWN_POSITIONS


def check_calibration(config: RunConfig, positions: int) -> None:
    """Raise Refused if a longest calibration text that the user chose is beyond the model's positions."""
    longest = config.quantization.sequence
    if longest > positions and longest != QuantizationOptions().sequence:
        raise Refused(
            f"quantization.sequence={longest} is beyond the {positions} positions of {model_name(config)}; "
            "choose fewer tokens, or 0 for the lengths of the cell"
        )


def beyond(sequence: int, most: int, name: object) -> str:
    """Return the message for a sequence that is longer than the model `name` can read."""
    return f"sequence={sequence} is beyond the {most} positions of {name}; set sequence= to at most {most}"


def model_reference(config: RunConfig, cache: Path, writes: bool = True) -> ModelReference:
    """Return the model for workers: where its checkpoint comes from, and its folder, identity and origin if known.

    The identity of a hub id is known after suites/running/locating.py has found its checkpoint.

    Args:
        writes: whether digests of large files are stored in the cache.

    Raises:
        Refused: weights, folder, architecture and tokenizer contradict one another.
    """
    random, model = config.weights is Weights.random, config.model
    path = str(Path(model.path).resolve()) if model.path else ""
    if random and path:
        raise Refused(f"weights=random makes new weights, but model.path={model.path} has weights; leave one out")
    if random and not model.architecture:
        raise Refused(f"weights=random needs model.architecture, which model={model_name(config)} does not have")
    if not (random or path or model.hub or describe(config.backend).source is SourceKind.none):
        raise Refused("model.hub= and model.path= are both empty; set one of them, or weights=random for latency only")
    return ModelReference(
        weights=config.weights.name,
        path=path,
        hub=model.hub,
        revision=model.revision,
        package=model.package,
        package_of=model.package_of,
        package_sha256=model.package_sha256,
        tokenizer=_tokenizer(config),
        architecture={name: to_json_types(value) for name, value in model.architecture.items()},
        seed=config.seed,
        identity=_identity(Path(path), cache, writes) if path else "",
        origin="path" if path else "",
    )


def _identity(folder: Path, cache: Path, writes: bool) -> str:
    try:
        return identity_of(folder, cache, writes)
    except OSError as error:
        name = Path(str(error.filename or folder)).name
        raise Refused(f"model.path={folder}: {name} cannot be read: {error.strerror}") from None


def _tokenizer(config: RunConfig) -> str:
    """Return the absolute path of the folder whose tokenizer random weights use; "" if they use none."""
    chosen = config.model.tokenizer
    if not chosen:
        return ""
    if config.weights is not Weights.random:
        raise Refused(f"model.tokenizer={chosen} is for weights=random; trained weights have their own tokenizer")
    if not tokenizer_files(Path(chosen)):
        raise Refused(
            f"model.tokenizer={chosen} has no tokenizer.json; give the folder of a checkpoint that has this file"
        )
    return str(Path(chosen).resolve())


def tokenizer_digest(model: ModelReference) -> dict[str, str]:
    """Return the digest of model.tokenizer for a cell; {} if random weights use no tokenizer."""
    if not model.tokenizer:
        return {}
    try:
        return {"tokenizer": tokenizer_identity(Path(model.tokenizer))[:16]}
    except OSError as error:
        raise Refused(f"model.tokenizer={model.tokenizer} cannot be read: {error.strerror}") from None


def model_version(config: RunConfig, model: ModelReference) -> str:
    """Return the digest that distinguishes models with the same name. A cell contains no path.

    It is the digest of the architecture of random weights, or the identity of a checkpoint.
    """
    if describe(config.backend).source is SourceKind.none:
        return ""
    if config.weights is Weights.random:
        return short_digest(to_json_types(config.model.architecture))
    return model.identity[:16]
