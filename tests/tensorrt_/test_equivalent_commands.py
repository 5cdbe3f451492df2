"""Commands of trtexec and polygraphy for cells: their flags exist, and they express the options of the cell."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.config_key import cell_mapping
from backends.options import Profiles
from backends.tensorrt_.equivalent_commands import no_commands, onnx_commands
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from backends.value_checks import Refused
from backends.vendor_tools import RecordedCell, ToolCommands

FLAGS_FILE = Path(__file__).with_name("trtexec_flags.txt")
POLYGRAPHY = [sys.executable, "-c", "from polygraphy.tools import main; main()"]
RELEASES = {"tensorrt 8.6.0": "8.6.1", "tensorrt 10.16.1": "10.16", "tensorrt 11.4.0": "11.1"}

EVERY_OPTION: dict[str, Any] = {
    "workspace_mb": 64, "optimization_level": 5, "aux_streams": 2, "timing_iterations": 4, "hardware_compatible": True,
    "version_compatible": True, "tactic_sources": ["edge_mask_convolutions"], "verbosity": "none",
    "plugin_libraries": ["libmine.so 0123456789abcdef"], "keep_fp32": ["*LayerNorm*"], "rewrites": ["merged_qkv"],
    "contexts": "per_profile", "memory_mb": 100,
}  # fmt: skip


def flags_of_trtexec() -> dict[str, set[str]]:
    """Return the flags by release."""
    text = re.sub(r"\n  ", " ", re.sub(r"^#.*\n", "", FLAGS_FILE.read_text(), flags=re.MULTILINE))
    return {release: set(flags.split()) for release, flags in (line.split(":") for line in text.strip().splitlines())}


def commands(
    precision: str = "fp16", release: str = "tensorrt 10.16.1", shapes: tuple[tuple[int, int], ...] = ((8, 128),),
    **options: Any,
) -> ToolCommands:  # fmt: skip
    defaults = cell_mapping(TensorRTOptions(profiles=Profiles.per_shape))
    sizes = {"min": [1, 16], "opt": [8, 128], "max": [8, 128]}
    quantization = {"quantization": {"scheme": "explicit"}} if precision in ("int8", "fp8") else {}
    return onnx_commands(
        RecordedCell(release, precision, shapes, {"cuda_graph": True, **defaults, **sizes, **quantization, **options})
    )


def words_of(found: ToolCommands, tool: str) -> list[list[str]]:
    return [[*command.words] for command in found.commands if command.words[0] == tool]


def build_of(found: ToolCommands) -> list[str]:
    return words_of(found, "trtexec")[0]


def values(words: list[str]) -> dict[str, str]:
    return {flag: value for flag, _, value in (word.partition("=") for word in words[1:])}


PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
CELLS = [(release, precision) for release in RELEASES for precision in PRECISIONS]


@pytest.mark.parametrize(("release", "precision"), [cell for cell in CELLS if cell != ("tensorrt 8.6.0", "bf16")])
@pytest.mark.parametrize("options", [{}, EVERY_OPTION, {"refit": True, "types": "graph", "cuda_graph": False}],
                         ids=["defaults", "every option", "types=graph"])  # fmt: skip
def test_trtexec_of_the_release_has_every_flag(release: str, precision: str, options: dict[str, Any]) -> None:
    known = flags_of_trtexec()[RELEASES[release]]
    for shapes in (((8, 128),), ((1, 32), (8, 128))):
        found = words_of(commands(precision, release, shapes, **options), "trtexec")
        assert len(found) >= 2
        assert {flag for words in found for flag in values(words)} - known == set()


@pytest.fixture(scope="module")
def help_of_polygraphy() -> str:
    done = subprocess.run([*POLYGRAPHY, "run", "--help"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "int8", "fp8"])
@pytest.mark.parametrize("options", [EVERY_OPTION, {"refit": True, "types": "graph", "tactic_sources": ["none"]}],
                         ids=["every option", "types=graph"])  # fmt: skip
def test_polygraphy_has_every_flag(precision: str, options: dict[str, Any], help_of_polygraphy: str) -> None:
    (words,) = words_of(commands(precision, shapes=((1, 32), (8, 128)), **options), "polygraphy")
    known = set(re.findall(r"(?<![\w-])--[a-z0-9-]+", help_of_polygraphy))
    flags = {word for word in words if word.startswith("--")}
    assert len(flags) > 8
    assert flags - known == set()


def test_polygraphy_reads_the_command_as_the_cell_says() -> None:
    options = {name: value for name, value in EVERY_OPTION.items() if name != "plugin_libraries"}
    (words,) = words_of(commands("int8", shapes=((1, 32), (8, 128)), **options), "polygraphy")
    script = subprocess.run([*POLYGRAPHY, *words[1:], "--gen-script", "-"], capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    for part in (
        "min=[1, 32], opt=[1, 32], max=[1, 32]",
        "min=[8, 128], opt=[8, 128], max=[8, 128]",
        "memory_pool_limits={trt.MemoryPoolType.WORKSPACE: 67108864}",
        "builder_optimization_level=5",
        "max_aux_streams=2",
        "tactic_sources=[trt.TacticSource.EDGE_MASK_CONVOLUTIONS]",
        "profiling_verbosity=trt.ProfilingVerbosity.NONE",
        "version_compatible=True",
        "fp16=True, int8=True",
        "add('input_ids', None, [1, 32])",
    ):
        assert part in script.stdout, part
    assert "tf32=True" not in script.stdout


def test_flags_of_the_builder_follow_the_options() -> None:
    found = values(build_of(commands("int8", **EVERY_OPTION)))
    assert found["--memPoolSize"] == "workspace:64M"
    assert found["--builderOptimizationLevel"] == "5"
    assert (found["--maxAuxStreams"], found["--avgTiming"]) == ("2", "4")
    assert found["--hardwareCompatibilityLevel"] == "ampere+"
    assert found["--staticPlugins"] == "libmine.so"
    assert {"--int8", "--fp16", "--noTF32", "--versionCompatible"} <= found.keys()
    assert not {"--memPoolSize", "--maxAuxStreams", "--avgTiming"} & values(build_of(commands())).keys()


@pytest.mark.parametrize(
    ("precision", "release", "types", "flags"),
    [
        ("fp32", "tensorrt 8.6.0", "auto", {"--noTF32"}),
        ("tf32", "tensorrt 8.6.0", "auto", set()),
        ("fp16", "tensorrt 8.6.0", "graph", {"--noTF32", "--fp16"}),
        ("fp16", "tensorrt 10.16.1", "auto", {"--noTF32", "--fp16"}),
        ("bf16", "tensorrt 10.16.1", "auto", {"--noTF32", "--bf16"}),
        ("fp8", "tensorrt 10.16.1", "auto", {"--noTF32", "--fp16", "--fp8"}),
        ("fp16", "tensorrt 10.16.1", "graph", {"--noTF32", "--stronglyTyped"}),
        ("fp16", "tensorrt 11.4.0", "auto", {"--noTF32"}),
    ],
)
def test_flags_of_precision_are_those_of_the_build(precision: str, release: str, types: str, flags: set[str]) -> None:
    kinds = {"--noTF32", "--fp16", "--bf16", "--int8", "--fp8", "--stronglyTyped"}
    assert values(build_of(commands(precision, release, types=types))).keys() & kinds == flags


def test_profiles_have_min_opt_and_max() -> None:
    found = values(build_of(commands(profiles="dynamic", min=[1, 16], opt=[4, 64], max=[8, 128])))
    shapes = [found[f"--{name}Shapes"].split(",")[0] for name in ("min", "opt", "max")]
    assert shapes == ["input_ids:1x16", "input_ids:4x64", "input_ids:8x128"]
    words = build_of(commands(shapes=((1, 32), (8, 128))))
    assert [word for word in words if word.startswith("--profile=")] == ["--profile=0", "--profile=1"]
    times = words_of(commands(shapes=((1, 32), (8, 128))), "trtexec")[1:]
    assert [values(time)["--useProfile"] for time in times] == ["0", "1"]


def test_trtexec_of_8_6_builds_an_engine_for_each_profile() -> None:
    found = commands(release="tensorrt 8.6.0", shapes=((1, 32), (8, 128)))
    plans = [values(words).get("--saveEngine") or values(words)["--loadEngine"] for words in words_of(found, "trtexec")]
    assert plans == ["model-0.plan", "model-1.plan", "model-0.plan", "model-1.plan"]
    assert any("the engine of the cell has 2" in note for note in found.notes)


def test_times_are_exported_with_the_graph_of_the_cell() -> None:
    graph, plain = (values(words_of(commands(cuda_graph=graph), "trtexec")[1]) for graph in (True, False))
    assert graph["--exportTimes"] == "times-8x128.json"
    assert "--useCudaGraph" in graph
    assert "--useCudaGraph" not in plain
    of_11 = values(words_of(commands(release="tensorrt 11.4.0", cuda_graph=False), "trtexec")[1])
    assert "--noCudaGraph" in of_11


def test_notes_name_the_parts_that_are_not_expressed() -> None:
    notes = " ".join(commands("int8", **EVERY_OPTION).notes)
    for part in ("keep_fp32=*LayerNorm*: not expressed", "trt.rewrites=merged_qkv", "trt.tactic_sources=",
                 "trt.timing_iterations=4", "Plugin libraries", "trt.contexts=per_profile", "trt.memory_mb=100",
                 "Q/DQ"):  # fmt: skip
        assert part in notes
    assert "not expressed" not in " ".join(commands().notes)
    assert "--calib=FILE" in " ".join(commands("int8", quantization={"scheme": "implicit"}).notes)
    assert "the casts are in model.onnx" in " ".join(commands(types="graph", keep_fp32=["*"]).notes)


def test_every_command_can_be_typed_into_a_shell() -> None:
    for command in commands("int8", **EVERY_OPTION).commands:
        assert shlex.split(shlex.join(command.words)) == [*command.words]
        assert command.purpose.endswith(".")


def test_a_release_without_a_version_is_refused() -> None:
    with pytest.raises(Refused, match="has no version"):
        commands(release="tensorrt")


def test_an_engine_of_plugins_is_refused() -> None:
    with pytest.raises(Refused, match="give a cell of backend=trt"):
        no_commands(RecordedCell("tensorrt 8.6.0", "fp16", ((1, 16),), {}))
