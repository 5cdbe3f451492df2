"""Records contain no folder names of the machine that made them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import json_of

from backends.model.reference import ModelReference
from suites.records.record import Record
from suites.running.machine_folders import clean, folder_replacements, without_folders

KNOWN = {"/srv/cache": "<cache>", "/srv": "<home>", "/srv/cache/own": "<results>"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cannot open /srv/cache/onnx/x.onnx", "cannot open <cache>/onnx/x.onnx"),
        ("/srv/cache/own/a, /srv/b and '/srv'", "<results>/a, <home>/b and '<home>'"),
        ("/srv/cache2/x", "<home>/cache2/x"),
        ("cache=/tmp/somebody/cache", "cache=<folder>/cache"),
        ("[/usr/share/a,/usr/share/b]", "[<folder>/a,<folder>/b]"),
        ("'/usr/share/a'", "'<folder>/a'"),
        ("/usr/lib/python3/dist-packages/numpy/x.py, line 3", "<folder>/dist-packages/numpy/x.py, line 3"),
        ("/usr/bin/", "<folder>/bin"),
        # These texts are not folders.
        ("quantization.leave_out=[/encoder/layer.0/*]", "quantization.leave_out=[/encoder/layer.0/*]"),
        ("/encoder/layer.0/output/MatMul", "/encoder/layer.0/output/MatMul"),
        ("see https://example.org/usr/share/a", "see https://example.org/usr/share/a"),
        ("models/usr/a and ../usr/share/a", "models/usr/a and ../usr/share/a"),
        ("1/2, and/or, tokens/s, /", "1/2, and/or, tokens/s, /"),
    ],
)
def test_only_folders_are_replaced(text: str, cleaned: str) -> None:
    assert clean(text, KNOWN) == cleaned
    assert clean(cleaned, KNOWN) == cleaned


def request(tmp_path: Path) -> Any:
    model = ModelReference("trained", str(tmp_path / "my model"))
    return SimpleNamespace(results=tmp_path / "results", cache=tmp_path / "cache", model=model)


def test_every_text_of_a_record_is_cleaned(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    own = [tmp_path / name for name in ("my model", "home/x", "cache/y", "results/z", ".")]
    text = " ".join(map(str, own))
    record = make_record(
        command=("python", f"model.path={own[0]}", f"cache={own[2]}"),
        reason=text,
        log_tail=text,
        artifacts={"built": {"notes": {"log": [text, 3, None]}}},
        facts={"loaded": {"x": text}},
        checks=({"batch": 2, "sequence": 16, "cuda_graph": False, "nonfinite": 0, "cosine": 1.0, "problem": text},),
    )
    cleaned = without_folders(record, request(tmp_path))
    assert str(tmp_path) not in json.dumps(cleaned.__dict__, default=str)
    assert cleaned.reason == "<model.path> <home>/x <cache>/y <results>/z <cwd>"
    assert cleaned.command[1:] == ("model.path=<model.path>", "cache=<cache>/y")
    assert json_of(cleaned)["artifacts"]["built"]["notes"]["log"][1:] == [3, None]
    assert cleaned.measurements == record.measurements


def test_a_user_without_home_and_name_can_write_a_record(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert "<home>" not in folder_replacements(request(tmp_path)).values()
    assert without_folders(make_record(reason="x"), request(tmp_path)).reason == "x"
