"""Checks of the folders of results and cache, of the free disk space, and of the access to the Hugging Face hub."""

from __future__ import annotations

import os
import shutil
import threading
import urllib.error
import urllib.request

from backends.finding import MISSING, OK, WARNING, Finding
from suites.asking.user_folders import chosen_folder
from suites.schema.refusals import Refused, first_line, unwritten

LEAST_DISK = 5 << 30
"""Bytes of free disk below which a sweep may not end: each precision of a model adds an ONNX file or an engine."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
HUB = "https://huggingface.co"


def folder_checks(key: str, given: str) -> list[Finding]:
    """Check that the folder of results= or cache= can be written, and its free disk space. Nothing is written."""
    try:
        folder = unwritten(key, chosen_folder(key, given))
    except Refused as reason:
        return [Finding(key, MISSING, str(reason), f"python -m suites.run {key}=/tmp/{key}")]
    checks = [Finding(key, OK, f"{folder} can be written")]
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return [*checks, Finding(f"disk of {key}", WARNING, f"unknown: {error.strerror}")]
    text = f"{free / 1e9:.1f} GB free"
    low = free < LEAST_DISK
    fix = f"du -sh {existing}" if low else ""
    return [
        *checks,
        Finding(f"disk of {key}", WARNING if low else OK, f"{text}; a sweep may fill it" if low else text, fix),
    ]


def hub_check(limit_s: float) -> Finding:
    """Check whether checkpoints can be fetched from the hub, within a time limit in seconds."""
    if variables := [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]:
        text = f"offline, because {' and '.join(variables)} is set; only checkpoints on this machine can run"
        return Finding("hub", WARNING, text, f"unset {' '.join(variables)}")
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    errors: list[str] = []

    def connect() -> None:
        errors.append(_fault(endpoint, limit_s))

    # The look-up of a host name has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit_s)
    fault = errors[0] if errors else f"no answer within {limit_s:g} s"
    if not fault:
        return Finding("hub", OK, f"{endpoint} answers")
    text = f"{endpoint} cannot be reached ({fault}); only checkpoints on this machine can run"
    return Finding("hub", WARNING, text, "python -m suites.run model.path=FOLDER")


def _fault(endpoint: str, limit_s: float) -> str:
    """Return why the hub does not answer; "" if it answers."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=limit_s):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except Exception as error:  # e.g. an endpoint that is not a URL
        return first_line(error)
