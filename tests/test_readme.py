"""README and docs: their commands compose, their figures are in committed records, and their links and files exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, Cli

from suites.cli.batch_file import batch_file
from suites.cli.command import COMMANDS as SUBCOMMANDS

README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, CHINESE, *DOCS]
REFERENCE = ROOT / "results" / "reference"
FINDINGS = sorted((REFERENCE / "findings").glob("*.md"))
WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", *FINDINGS]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(page: Path) -> list[str]:
    """Return the command lines of indented code blocks and of code in sentences."""
    text = text_of(page)
    blocks = re.findall(r"^ {4}(python -m suites\.[^#\n]*)", text, re.MULTILINE)
    return [line.strip() for line in [*blocks, *re.findall(r"`(python -m suites\.\w+[^`\n]*)`", text)]]


COMMANDS = sorted({command for page in WRITTEN for command in commands(page)})


def modules(name: str) -> list[str]:
    """Return the commands of one module."""
    return [command for command in COMMANDS if shlex.split(command)[2] == f"suites.{name}"]


def overrides(command: str) -> list[str]:
    """Return the key=value arguments of a command; for a sweep those of its first cell, without its launcher."""
    words = [word for word in shlex.split(command)[3:] if re.match(r"(?!hydra\.)[\w.]+=", word)]
    return [re.sub(r"^(\w[\w.]*=)([^\[,]+),.*$", r"\1\2", word) for word in words]


def test_readme_begins_with_the_two_commands() -> None:
    assert re.findall(r"^ {4}(make [\w-]+)", text_of(README), re.MULTILINE)[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", [*modules("run"), *modules("search")])
def test_commands_compose(command: str, cli: Cli) -> None:
    done = cli("--cfg", "job", *overrides(command), folders=False)
    assert done.returncode == 0, done.stderr


OTHERS = (
    *(module.removeprefix("suites.") for name, (module, _) in SUBCOMMANDS.items() if name not in ("run", "search")),
    "comparing.verdict_rates",
    "serving.generator_limit",
)
"""Commands whose arguments are not only overrides of the configuration."""


@pytest.mark.parametrize("name", OTHERS)
def test_other_commands_have_valid_flags_and_files(name: str, capsys: pytest.CaptureFixture[str], cli: Cli) -> None:
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"suites.{name}").main(["--help"])
    assert end.value.code == 0
    flags = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert modules(name)
    for command in modules(name):
        words = shlex.split(command)[3:]
        assert {word for word in words if word.startswith("--")} <= flags, command
        files = [word for word in words if word.startswith(("suites/conf/", "results/reference"))]
        files += words[:1] if name == "advise" and not words[0].isupper() else []
        assert [file for file in files if not (ROOT / file).exists()] == []
        if name == "batch" and words[0] != "FILE":
            assert batch_file(Path(words[0])).exists()
            done = cli("--cfg", "job", *overrides(command), folders=False)
            assert done.returncode == 0, done.stderr


OF_COMMITTED_RECORDS = [command for name in ("advise", "choose") for command in modules(name)
                        if "results/reference" in command]  # fmt: skip


@pytest.mark.parametrize("command", OF_COMMITTED_RECORDS)
def test_commands_that_read_committed_records_have_an_answer(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a command works in a new clone, so its files are in the project too. `choose` returns 1 without a winner."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("suites.advise.write_plots", lambda *arguments: [])
    words = shlex.split(command)
    assert importlib.import_module(words[2]).main(words[3:]) < (2 if "choose" in command else 1)
    assert capsys.readouterr().out


def test_every_command_is_checked() -> None:
    checked = [command for name in ("run", "search", *OTHERS) for command in modules(name)]
    assert sorted(checked) == COMMANDS
    assert len([command for command in commands(README) if "suites.run" in command]) == 6
    assert len(checked) >= 40
    assert {command.split()[2] for command in OF_COMMITTED_RECORDS} == {"suites.advise", "suites.choose"}


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {target for page in WRITTEN for target in re.findall(r"(?:^ {4}|`)make ([a-z0-9-]+)", text_of(page), re.M)}
    assert {"demo", "test", "test-all", "docs"} <= named <= targets


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_exist(page: Path) -> None:
    ignored = [line.rstrip("/") for line in text_of(ROOT / ".gitignore").split()]
    for path in re.findall(r"`((?:conf|suites|backends|results|tests|docs)/[\w/.-]+)`", text_of(page)):
        named = path.partition("/MACHINE")[0]
        assert (ROOT / named).exists() or any(path.startswith(folder) for folder in ignored), path


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_have_targets(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text_of(page))
    assert [link for link in links if not (page.parent / link).exists()] == []


MADE = ("latency", "kernels", "accuracy", "recipes", "switching", "gpu_and_request", "limits")


@pytest.mark.parametrize(("file", "least"), [(ROOT / "docs" / "findings.md", 40), *((file, 12) for file in FINDINGS)])
def test_every_figure_it_quotes_is_in_the_tables(file: Path, least: int) -> None:
    tables = "".join(text_of(table) for name in MADE for table in REFERENCE.glob(f"*/tables/**/{name}.md"))
    text = text_of(file)
    quoted = re.findall(r"(\d+\.\d+) [mu]s", text) + re.findall(r"0\.\d{5,6}\b", text)
    assert len(quoted) >= least
    assert [figure for figure in quoted if not re.search(rf"\| {re.escape(figure)} +[\[(|]", tables)] == []


def test_the_share_of_gelu_follows_from_the_times_next_to_it() -> None:
    text = " ".join(text_of(ROOT / "docs" / "findings.md").split())
    matched = re.search(r"formula of GELU changes the time by (\d+)%.*?takes (\S+) ms instead of (\S+) ms", text)
    assert matched
    percent, fast, slow = map(float, matched.groups())
    assert round(100 * (1 - fast / slow)) == percent


@pytest.mark.parametrize("file", FINDINGS, ids=lambda file: file.stem)
def test_findings_begin_with_their_conclusion_and_a_plot(file: Path) -> None:
    title, conclusion, plot, *_ = text_of(file).split("\n\n")
    assert title.startswith("# ")
    assert conclusion.startswith("**Conclusion.**")
    assert plot.startswith("![")
