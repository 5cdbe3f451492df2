"""Progress in a terminal and without one."""

from __future__ import annotations

import io
import re

from rich.console import Console

from suites.cli.display import Display


def shown(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with Display(console) as display:
        display.begin("minilm ort int8", "cell 2 of 4", process="process 1 of 3")
        for stage in ("probe", "build", "measure", "measure"):
            display.stage(stage, "starting")
        display.begin("minilm ort int8", "cell 2 of 4", "process 2 of 3", remaining="about 3 min left")
        display.stage("measure", "starting")
        display.end("ok", "record.json")
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_without_a_terminal_each_process_has_a_line() -> None:
    start = "started: cell 2 of 4  minilm ort int8  "
    stages = ("probe", "process 1 of 3", "process 2 of 3  about 3 min left")
    assert shown(False).splitlines() == [*(start + stage for stage in stages), "ok  minilm ort int8  record.json"]


def test_a_terminal_has_one_live_line_instead() -> None:
    lines = shown(True)
    assert "started" not in lines
    assert "cell 2 of 4  minilm ort int8  build  starting  " in lines
    assert re.search(r"cell 2 of 4  minilm ort int8  measure  starting  \d+ s  about 3 min left", lines)
    assert "ok  minilm ort int8  record.json" in lines
