"""Texts from records and workers in terminals, tables and headings."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import table_in
from rich.console import Console

from suites.cli.display import Display
from suites.latency.tables import latency_tables
from suites.records.record import Record, read_record, write_record
from suites.tables.markdown import markdown
from suites.tables.write_tables import write_tables
from suites.text import cell_text, essential, one_line, without_html

NASTY = (
    "\x1b]0;title\x07\x1b[31mred\n## heading\r\n| a | b |\u202e<script>alert(1)</script>![x](http://x/y) \u2028# more"
)


def test_a_text_becomes_one_line_without_terminal_control_codes() -> None:
    shown = one_line(NASTY)
    assert shown.isprintable()
    assert shown.startswith("\\x1b]0;title\\x07\\x1b[31mred ## heading")
    assert one_line("\u00b5s \u4e2d") == "\u00b5s \u4e2d"
    assert len(one_line("x" * 10**7)) < 5000


@pytest.mark.parametrize(
    ("text", "cell"), [("a|b", r"a\|b"), (r"a\|b", r"a\\\|b"), ("a\nb", "a b"), ("from \\ to", "from \\ to")]
)
def test_a_pipe_does_not_end_a_table_cell(text: str, cell: str) -> None:
    assert cell_text(text) == cell


def test_a_header_with_a_pipe_is_one_cell() -> None:
    header, line, row = markdown(("a", "task|x"), [["1", "2|3"]]).splitlines()
    assert header.replace("\\|", "").count("|") == line.count("|") == row.replace("\\|", "").count("|") == 3


def test_html_and_links_are_escaped() -> None:
    assert without_html("a <b>x</b> [y](z) 1 < 2 <3") == "a &lt;b>x&lt;/b> [y]\\(z) 1 < 2 <3"


PLACES = {
    "reason": {"outcome": "failed", "reason": NASTY},
    "gpu": {"environment": {"machine": "gpu-a", "gpu": NASTY, "driver": NASTY, "uuid": NASTY}},
    "release": {"release": NASTY},
    "model": {"model": NASTY.replace("/", "").replace("\\", "")},
    "weights": {"weights": NASTY},
    "option": {"options": {NASTY: NASTY}},
    "lengths": {"lengths": {"distribution": NASTY, "tokens": NASTY}},
}


@pytest.mark.parametrize("place", PLACES)
def test_texts_of_a_record_add_no_line_and_no_html_to_a_table(
    place: str, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    plain = latency_tables([make_record(), make_record(options={"x": "y"})])
    write_record(tmp_path, make_record())
    path = write_record(tmp_path, make_record(**PLACES[place]))
    _, (folder,) = write_tables(tmp_path)
    text = table_in(tmp_path, "latency").read_text()
    assert all(line.isprintable() for line in text.splitlines())
    assert "<script" not in text
    assert "](" not in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert len(headings) <= plain.count("\n#") + 2
    assert not any(line.startswith(("## heading", "# more")) for line in headings)
    assert path.exists()
    if path not in folder.bad:
        assert read_record(path).reason.isprintable()


def test_texts_of_a_worker_are_shown_as_plain_text() -> None:
    shown = io.StringIO()
    display = Display(Console(file=shown, force_terminal=False, width=200))
    with display:
        display.begin(NASTY)
        display.stage("measure", NASTY, keep=True)
        display.end("failed", NASTY)
        display.say(NASTY)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 4  # the start, the stage, the end and the message
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("the step in a child process failed: RuntimeError: no step: 1: [runner.cpp::execute::764] Error Code 1: Graph "
         "([exec] error); 1: [checkMacros.cpp::catchCudaError::203] Error Code 1: Cuda Runtime (invalid argument)",
         "no step: Graph ([exec] error); Cuda Runtime (invalid argument)"),
        ("[builder.cpp::build::12] no memory", "no memory"),
        ("batch=[1,32] is too large: 1: see [docs]", "batch=[1,32] is too large: 1: see [docs]"),
    ],
)  # fmt: skip
def test_the_essential_words_of_a_reason(reason: str, words: str) -> None:
    assert essential(reason) == words
