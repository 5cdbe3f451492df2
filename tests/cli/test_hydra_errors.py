"""Errors of a configuration give one line with the fix, and no configuration file can run code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

import pytest
from conftest import Cli

from suites import run
from suites.cli import hydra_errors, schema_keys
from suites.cli.hydra_errors import unknown_key
from suites.cli.schema_keys import known_keys
from suites.root import CONF
from suites.schema.config import RunConfig
from suites.schema.refusals import nearest
from suites.schema.run_schema import run_schema

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Return the line that refuses a command line before any process starts."""

    def refused(*arguments: str) -> str:
        folders = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
        monkeypatch.setattr(sys, "argv", ["run", *arguments, *folders])
        assert run.main() == 2
        out, error = capsys.readouterr()
        assert error.count("\n") == 1, error
        assert error.startswith("refused: ")
        assert "Traceback" not in out + error
        return error

    return refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.name=a=b"], """write 'model.name="a=b"'"""),
        (["task.name=x (1)"], """write 'task.name="x (1)"'"""),
        (["task.hub=[a"], "close its brackets"),
        (["model.name=o'neil"], "has characters that must be quoted"),
        (["a b=3"], "is not of the form key=value"),
        (["null.other=3"], "null.other"),
        (["null.other.x=3"], "null.other has no x; a new entry needs a plus: +null.other.x=VALUE"),
        (["+suite.foo=1"], "there is no key suite.foo; choices: suite.name"),
        (["+model.pth=x"], "did you mean model.path?"),
        (["trt.ranges=[1,2]"], "trt.ranges must be a list of lists, e.g. trt.ranges=[[1,8]]"),
        (["trt.ranges=[[1,8],{x: 1}]"], "trt.ranges must be a list of lists, e.g. trt.ranges=[[1,8]]"),
        (["lengths.counts={a: 1}"], "lengths.counts must be a list, e.g. lengths.counts=[1,8]"),
        (["null.other=[1]"], "null.other must be a mapping, e.g. null.other={NAME: 1}"),
        (["keep_fp32=3"], "keep_fp32 must be a list of names"),
        (["batch=[[1]]"], "batch=[[1]] must be a list of whole numbers"),
        (["sequence=[[16],[32]]"], "sequence=[[16], [32]] must be a list of whole numbers"),
        (["keep_fp32=[[a]]"], "must be a list of names"),
        (["trt.ranges=[[1,[2]]]"], "trt.ranges"),
        (["lengths.values=[[2]]", "lengths=stsb"], "must be a list of whole numbers"),
        (["+null.other.x=[1]"], "null.other"),
        (["batch=null"], "batch=null is not a value"),
        (["suite=null"], "suite=null names no choice"),
        (["suite=5"], "suite=5 names no choice"),
        (["task=[a]"], "there is no task=a; choices: banking77"),
        (["model=null"], "model=null names no choice"),
        (["-m", "seed=range(0,3,0)"], "seed=range(0,3,0) cannot be composed: ValueError: range() arg 3"),
        (["-m", "seed=range(0,0)"], "the sweep has no cells: seed=range(0,0) gives no value"),
        (["interpreter=nope"], "there is no interpreter=nope; choices: main"),
        (["interpreter=mian"], "there is no interpreter=mian; did you mean main? choices: main"),
        (
            ["precision=int9"],
            "there is no precision=int9; did you mean int8? choices: fp32, tf32, fp16, bf16, fp8, int8",
        ),
        (["-m", "precision=fp32,nt8"], "there is no precision=nt8; did you mean int8? choices: fp32"),
        (["precision=fp32,int8"], "precision=fp32,int8 has several values; add -m to run each of them"),
        (["precision=[int8]"], "precision takes one of fp32, tf32"),
        (["precision=null"], "precision=null is not a value"),
        (["precision.name=int8"], "precision takes a value and has no keys; write precision=VALUE"),
        (["+precision=int8"], "precision is a key of the schema; write precision=VALUE without a plus"),
        (["device=cude"], "there is no device=cude; did you mean cuda? choices: auto, cpu, cuda"),
        (["quantization.method=minmx"], "there is no quantization.method=minmx; did you mean minmax?"),
        (["quantization=minmax"], "quantization is a group of keys; set one of quantization.scheme"),
        (["model.hub.name=x"], "model.hub takes a value and has no keys; write model.hub=VALUE"),
        (["~modle.path"], "there is no key modle.path; did you mean model.path?"),
        (["sutie=latency"], "there is no key sutie; did you mean suite?"),
        (["task=sst"], "there is no task=sst; did you mean stsb?"),
        (["+model.names.a=[1]"], "model.names"),
        (["--multirn"], "there is no flag --multirn; did you mean --multirun?"),
        (["null.step_ms=nan"], "null.step_ms=nan must be a finite number of at least 0"),
        (["null.step_ms=inf"], "null.step_ms=inf must be a finite number"),
        (["+null.other={step_ms 1x16: nan}"], "null.other.step_ms 1x16=nan must be a finite number of at least 0"),
        (["+null.other={step_ms 1x16: -1}"], "null.other.step_ms 1x16=-1.0 must be at least 0"),
        (["+null.other={stp_ms 1x16: 1}"], "null.other has no cost 'stp_ms 1x16'; write a cost and a shape, such as"),
        (["+null.other={cold_ms 1x16: 1}"], "'step_ms 2x16', with step_ms, gpu_ms, python_ms, capture_ms, shape_ms, "),
        (["+null.other={step_ms: 1}"], "null.other has no cost 'step_ms'"),
        (["+null.other={step_ms 1-16: 1}"], "null.other has no cost 'step_ms 1-16'"),
        (["+null.other={step_ms 1x16 2x16: 1}"], "shape_ms, first_ms, first_gpu_ms also take two shapes"),
        (["+null.other={shape_ms 1x16 2x16 3x16: 1}"], "null.other has no cost 'shape_ms 1x16 2x16 3x16'"),
        (
            ["+null.profile_of={2*16: 1}"],
            "null.profile_of.2*16 is not a shape; write it as batch and sequence, such as",
        ),
        (["task.path=" + "x" * 5000], "is not a file"),
        (
            ["quantization={methodd: search}"],
            "there is no key quantization.methodd; did you mean quantization.method? (How",
        ),
        (
            ["+quantization={methodd: search}"],
            "there is no key quantization.methodd; did you mean quantization.method? (How",
        ),
        (
            ["null.other={step 1x16: 1}"],
            "null.other has no such entry; new entries need a plus: +null.other={NAME: VALUE}",
        ),
        (["model.architecture.hiden_size=4"], "did you mean model.architecture.hidden_size?"),
        (["-m", "quantization.methodd=search,minmax"], "did you mean quantization.method? (How calibration"),
        (["seed=abc"], "seed=abc must be a whole number"),
        (["suite.seconds=abc"], "suite.seconds=abc must be a number"),
        (["rerun=maybe"], "rerun=maybe must be true or false"),
        (["batch=[a]"], "batch: a must be a whole number"),
        (["seed=${sed}"], "${sed} names no key; did you mean seed?"),
        (["seed=${foo:1}"], "${foo:...} is not supported; give the value itself"),
        (["seed=???"], "seed=??? is not a value"),
        (["+suite=latency"], "suite is chosen twice; write suite=NAME once, without a plus"),
        (["=3"], "'=3' is not of the form key=value"),
        (["batch"], "'batch' is not of the form key=value; did you mean batch=VALUE?"),
        (["--seed", "3"], "there is no flag --seed; did you mean seed=VALUE?"),
    ],
)
def test_a_configuration_that_cannot_be_composed_is_refused(arguments: list[str], says: str, refusal: Refusal) -> None:
    assert says in refusal("backend=null", *arguments)


@pytest.mark.parametrize("key", known_keys(run_schema()))
def test_a_key_with_a_typo_names_the_nearest(key: str) -> None:
    group, _, name = key.rpartition(".")
    typed = [f"{name}x", name[:-1] if len(name) > 3 else name + name[-1], name.upper(), name[:2] + name[1:]]
    others = [word for word in typed if f"{group}.{word}" not in known_keys(run_schema())]
    wrong = [f"{group}.{word}" if group else word for word in others]
    wrong += [f"{group[:-1]}.{name}", f"{group[:2]}{group[1:]}.{name}"] if group else []
    for word in wrong:
        assert f"there is no key {word}; did you mean {key}?" in unknown_key(word)


@pytest.mark.parametrize("group", [item.name for item in fields(run_schema()) if is_dataclass(item.default_factory)])
def test_a_choice_with_a_typo_names_the_nearest(group: str, refusal: Refusal) -> None:
    for choice in sorted(file.stem for file in (CONF / group).glob("*.yaml"))[-1:]:
        assert f"did you mean {choice}?" in refusal(f"{group}={choice}x")


def test_of_two_equally_near_names_the_one_with_the_same_first_letter_is_suggested() -> None:
    assert nearest("otr", ["trt", "ort"]) == nearest("otr", ["ort", "trt"]) == "ort"
    assert nearest("xyz", ["trt", "ort"]) == nearest("ort", ["ort"]) == nearest("", []) == ""


def test_a_key_is_named_with_its_help() -> None:
    @dataclass
    class Schema(RunConfig):
        shine: int = field(default=0, metadata={"help": "How bright."})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra_errors, "run_schema", lambda: Schema)
        patch.setattr(schema_keys, "run_schema", lambda: Schema)
        assert "there is no key shinee; did you mean shine? (How bright.) choices: " in unknown_key("shinee")


FILES_WITH_A_TYPO = {
    "experiment/e.yaml": [
        ("batchs: [1]", "there is no key batchs; did you mean batch?"),
        ("suite: {secnds: 1}", "there is no key suite.secnds; did you mean suite.seconds?"),
        ("trt: {mni: [1, 2]}", "there is no key trt.mni; did you mean trt.min?"),
        ("quantization: {method: minmx}", "there is no quantization.method=minmx; did you mean minmax?"),
        ("defaults: [override /modl: minilm]", "there is no key modl; did you mean model?"),
        ("defaults: [override /backend: ort]", "backend is a key and not a group; write backend: VALUE"),
    ],
    "model/e.yaml": [("nam: x", "there is no key model.nam; did you mean model.name?")],
}


@pytest.mark.parametrize(
    ("file", "text", "says"), [(file, *case) for file, cases in FILES_WITH_A_TYPO.items() for case in cases]
)
def test_a_file_with_a_typo_is_named_with_the_nearest(
    file: str, text: str, says: str, tmp_path: Path, refusal: Refusal
) -> None:
    path = tmp_path / "more" / file
    path.parent.mkdir(parents=True)
    package = "# @package _global_\n" if file.startswith("experiment") else ""
    path.write_text(package + text + "\n")
    group = path.parent.name
    line = refusal("--config-dir", str(tmp_path / "more"), "backend=null", f"{group}=e")
    assert line.startswith(f"refused: {file}: {says}")


EVIL = {
    "callbacks": "hydra: {callbacks: {x: {_target_: os.system, command: 'touch MARK'}}}",
    "launcher": "hydra: {launcher: {_target_: os.system}}",
    "job_logging": "hydra: {job_logging: {handlers: {x: {'()': os.system, command: 'touch MARK'}}}}",
    "hydra_logging": "hydra: {hydra_logging: {formatters: {x: {'()': os.system, command: 'touch MARK'}}}}",
    "env_set": "hydra: {job: {env_set: {LD_PRELOAD: /tmp/evil.so}}}",
}


@pytest.mark.parametrize("sweep", [(), ("-m",)])
@pytest.mark.parametrize("part", EVIL)
def test_no_configuration_file_runs_code(part: str, sweep: tuple[str, ...], tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = EVIL[part].replace("MARK", str(tmp_path / "mark"))
    (tmp_path / "more" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}\n")
    line = refusal(*sweep, "--config-dir", str(tmp_path / "more"), "backend=null", "experiment=evil")
    assert "which can run code" in line
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backend=torch_eager", "+model.architecture.hiden_size=1"), "is read with weights=random only"),
        (("backend=ort", "precision=int8", "quantization.samples=99999999999999"), "must be between 1 and 100000"),
    ],
)
def test_an_unused_key_and_an_impossible_value_are_refused(cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert says in done.stderr
