"""docs/install.md names only commands and files that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from conftest import ROOT, Cli

from suites.asking.user_folders import DEFAULTS, NAME
from suites.cli.batch_file import batch_file
from suites.cli.local_settings import FILE

PAGE = (ROOT / "docs" / "install.md").read_text()
TYPED = [shlex.split(line)[1:] for line in re.findall(r"^ {4}(inference-suites .*)", PAGE, re.MULTILINE)]


def test_its_commands_exist(cli: Cli) -> None:
    assert {words[0] for words in TYPED} == {"--help", "run", "batch"}
    for command, *words in TYPED:
        if command == "run":
            done = cli("--cfg", "job", *words, folders=False)
            assert done.returncode == 0, done.stderr
        if command == "batch":
            assert batch_file(Path(words[0])).is_file()
    assert "`inference-suites --help` lists its subcommands" in PAGE


def test_its_folders_and_files_match_the_code() -> None:
    for name in (*DEFAULTS.values(), f"~/.local/share/{NAME}/results", f"~/.cache/{NAME}", f"~/.config/{NAME}", FILE):
        assert f"`{name}`" in PAGE
    for name in ("Dockerfile", "Dockerfile.cuda"):
        assert f"`{name}`" in PAGE
        assert (ROOT / name).is_file()
