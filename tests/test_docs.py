"""The generated parts of README and docs are up to date, and every key of the configuration has help."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from conftest import ROOT

from backends.config_key import key, keys_of
from docs.generate.hook import in_site, on_page_markdown
from docs.generate.pages import generated, with_blocks
from docs.generate.results import CPU, CPU_CELLS, H100, H100_CELLS, REFERENCE, result_table
from docs.generate.tables import LEGENDS
from suites.cli.help import COMMON_KEYS, help_text
from suites.records.results_folder import MachineFolder
from suites.schema.config import RunConfig
from suites.schema.run_schema import run_schema
from suites.tables.write_tables import tables_by_suite

KEYS = list(keys_of(run_schema()))


def test_generated_files_are_up_to_date() -> None:
    stale = [path.name for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run python -m docs.generate"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_has_the_result(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert result_table() in text
    assert with_blocks(text.replace("| trt ", "| tr? ")) == text, "blocks are made anew"


def test_the_result_comes_from_several_processes() -> None:
    folder = MachineFolder(REFERENCE, H100)
    for cell in H100_CELLS:
        record = folder.record("latency", cell)
        assert record is not None
        least = 2 if record.cell.precision == "fp8" else 5
        assert len({measurement.process for measurement in record.measurements}) >= least
    assert len(result_table().splitlines()) == 2 + len(H100_CELLS)


def test_the_page_about_cpus_has_the_time_of_the_demo() -> None:
    folder = MachineFolder(REFERENCE, CPU)
    timed = [record for cell in CPU_CELLS if (record := folder.record("latency", cell))]
    scored = [record for record in folder.records("accuracy") if record.maker == timed[0].maker]
    assert [record.cell.lengths["task"] for record in scored] == ["sentences"] * len(timed)
    assert all(record.maker == timed[0].maker for record in timed)
    cells = [*timed, *scored]
    seconds = sum(sum(record.stages.values()) for record in cells)
    page = " ".join((ROOT / "docs" / "guides" / "cpu.md").read_text(encoding="utf-8").split())
    assert f"All {len(cells)} cells of the demo" in page
    assert f"took {seconds / 60:.0f} minutes there" in page


@pytest.mark.parametrize("described", KEYS, ids=lambda described: described.name)
def test_every_key_has_help(described: object) -> None:
    text = getattr(described, "text", "")
    assert re.fullmatch(r"[\w\[].+\.", text), text
    assert not re.search(r"\b[Ww]hat\b", text)


def test_the_reference_shows_types_and_defaults_of_keys() -> None:
    by_name = {described.name: described for described in KEYS}
    assert (by_name["suite.warm_up_s"].type, by_name["suite.warm_up_s"].default) == ("number", "3")
    assert by_name["trt.ranges"].type == "list of lists of whole numbers"
    assert by_name["profiles"].type == "dynamic, per_shape, buckets, ranges"
    assert by_name["torch.compile_mode"].default == "default"
    assert by_name["batch"].default == "[1,8]"
    assert by_name["quantization.shift"].default == "false"


def test_each_configuration_has_its_own_copy_of_a_list_default() -> None:
    assert key([1], "Help.").default_factory() is not key([1], "Help.").default_factory()  # type: ignore[attr-defined]
    RunConfig().batch.append(5)
    assert RunConfig().batch == [1, 8]


def test_the_short_help_contains_the_help_of_its_keys() -> None:
    shown = {described.name for described in KEYS if "." not in described.name or described.in_help} | set(COMMON_KEYS)
    assert {"trt.min", "plugin.gelu", "interpreter.trt"} <= shown
    words = " ".join(help_text().split())
    assert [name for name in shown if name not in {described.name for described in KEYS}] == []
    assert [described.name for described in KEYS if described.name in shown and described.text not in words] == []
    assert max(len(line) for line in help_text().splitlines()) <= 120


def test_every_table_is_explained() -> None:
    assert {file for _, file, _, _ in LEGENDS} == {
        f"{name}{table.suffix}" for tables in tables_by_suite().values() for name, table in tables.items()
    }


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


@pytest.mark.parametrize(
    ("source", "link", "place"),
    [
        ("guides/int8.md", "../findings.md", "../findings.md"),
        ("guides/int8.md", "../../results/README.md", "../results/README.md"),
        ("README.md", "docs/guides/int8.md", "guides/int8.md"),
        ("results/README.md", "../docs/guides/int8.md", "../guides/int8.md"),
        ("tables.md", "../README.md", "README.md"),
        ("README.md", "LICENSE", None),
    ],
)
def test_links_are_rewritten_for_the_site(source: str, link: str, place: str | None) -> None:
    site_files = {"findings.md", "guides/int8.md", "results/README.md", "README.md", "tables.md"}
    assert in_site(source, link, site_files) == place


def test_a_page_of_the_site_links_to_pages_and_names_other_files() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/int8.md"))
    files = [SimpleNamespace(src_uri=name) for name in ("guides/int8.md", "findings.md", "images/result.svg")]
    text = "[a](../findings.md#accuracy) ![b](../images/result.svg) [c](../../LICENSE) [d](#calibration) [e](https://x)"
    shown = "[a](../findings.md#accuracy) ![b](../images/result.svg) c [d](#calibration) [e](https://x)"
    assert on_page_markdown(text, page, None, files) == shown


def headings(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def code(text: str) -> list[str]:
    return re.findall(r"^ {4}\S.*$|^```[\s\S]*?^```", text, re.MULTILINE)


def test_the_chinese_readme_has_the_same_commands_headings_and_tables() -> None:
    english, chinese = ((ROOT / f"README{name}.md").read_text(encoding="utf-8") for name in ("", ".zh-CN"))
    assert headings(chinese) == headings(english)
    assert code(chinese) == code(english)
    for pattern in (r"\]\(([^)]+)\)", r"^\|", r"^- "):
        matches = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        ignored = {"README.md", "README.zh-CN.md"}
        assert [match for match in matches[1] if match not in ignored] == [
            match for match in matches[0] if match not in ignored
        ]


def test_readmes_are_short() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 120
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_lines_of_tables_and_code_fit_in_120_characters(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for block in code(text) for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("|")]
    assert [line for line in lines if len(line) > 120] == []
