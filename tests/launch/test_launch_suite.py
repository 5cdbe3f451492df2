"""suite=launch must recover programmed times of host and device; shares of Python of real sessions; advice; plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Cli, json_of, measure_run, table_in
from markdown_rows import rows

from backends.base import BuildSpec, Device, Session, Shape, Unsupported
from backends.null_.null import Costs, NullSession, null_hidden
from backends.ort_.description import OrtOptions
from backends.ort_.ort_session import OrtSession, SessionSettings
from backends.tensorrt_.runtime.layout import ArrangedBatch
from backends.torch_.torch_profiler import outside_share
from backends.torch_.torch_session import CapturedStep as TorchCaptured
from backends.torch_.torch_session import TorchSession
from suites.launch.launch_advice import sentences
from suites.launch.launch_plots import Row, panels_of, write_launch_plots
from suites.launch.measure import measure
from suites.launch.result import LaunchResult, LaunchTimes
from suites.launch.tables import launch_tables
from suites.measuring.clock import Effort
from suites.records.record import BadRecord, Record, write_record
from suites.records.results_folder import MachineFolder, read_records
from suites.report import main as report
from suites.suite import Question

pytestmark = pytest.mark.usefixtures("exact_clock")

MakeRecord = Callable[..., Record]
SHAPES = (Shape(1, 16), Shape(8, 16))
EFFORT = Effort(0.05, 0.05, 5, 10, 0.1)
# At batch 1 the host takes longer than the device, at batch 8 the device.
PROGRAMMED = Costs(step_ms=4.0, python_ms=1.0, gpu_ms=2.0, capture_ms=5.0, other={"gpu_ms 8x16": 20.0})


def measured(session: Callable[[], Session], cuda_graph: bool = True) -> LaunchResult:
    arrays = {}
    for shape in SHAPES:
        ids = np.full((shape.batch, shape.sequence), 7, np.int32)
        arrays |= {f"{shape}/input_ids": ids, f"{shape}/attention_mask": np.ones_like(ids)}
        arrays |= {f"{shape}/reference": null_hidden(ids), f"{shape}/rows": np.arange(shape.batch)}
    answer = measure(measure_run(session, SHAPES, arrays, EFFORT, cuda_graph), Question())
    assert [check.cosine for check in answer.checks] == [pytest.approx(1.0)] * 2
    assert isinstance(answer.result, LaunchResult)
    return answer.result


def test_programmed_times_on_a_gpu_are_recovered() -> None:
    result = measured(lambda: NullSession("ok", PROGRAMMED))
    found = [
        (t.batch, t.cuda_graph, round(t.enqueue_ms, 1), round(t.python_share or 0, 3), t.busy_ms, t.step_ms,
         t.waiting_share)
        for t in result.times
    ]  # fmt: skip
    assert found == [
        (1, False, 4.0, 0.25, 2.0, 4.0, 0.5),
        (1, True, 0.0, 0.0, 2.0, 2.0, 0.0),
        (8, False, 4.0, 0.25, 20.0, 20.0, 0.0),
        (8, True, 0.0, 0.0, 20.0, 20.0, 0.0),
    ]
    assert list(sentences(result)) == [
        "Sequence length 16: without a CUDA graph, the GPU waits for the host 50% at batch 1, 0% at batch 8 of the "
        "time. Use CUDA graphs at batch 1; they save up to 50% of a step, at batch 1.",
        "Sequence length 16: Python takes 25.0% at batch 1, 25.0% at batch 8 of the enqueue.",
    ]


def test_on_a_cpu_the_figures_of_a_gpu_stay_empty() -> None:
    result = measured(lambda: NullSession("ok", replace(PROGRAMMED, gpu_ms=0.0, other={"python_ms 8x16": 0.0})))
    assert [t.cuda_graph for t in result.times] == [False, False]
    for times, share in zip(result.times, (0.25, 0.0), strict=True):
        assert (times.busy_ms, times.waiting_share) == (None, None)
        assert times.step_ms == times.enqueue_ms == 4.0
        assert times.python_share == share
    assert list(sentences(result)) == [
        "Sequence length 16: Python takes 25.0% at batch 1, 0.0% at batch 8 of a step. A server without Python saves "
        "at most this share; it is worth a trial at batch 1."
    ]


def called(call: Callable[[], object]) -> object:
    return call()


class ShortQueue(NullSession):
    """The device must have started a step before the host can return from it."""

    def step(self) -> None:
        super().step()
        self.wait()


class NoGraph(NullSession):
    def capture(self) -> None:
        raise Unsupported("no graph here")


class ManyCalls(NullSession):
    """Session whose step makes several calls, a share of 0.3 outside of them."""

    observed = Session.observed

    def python_share(self, steps: int) -> float | None:
        return None if self.replays else 0.3


def test_a_queue_that_is_too_short_for_a_step_gives_no_busy_time() -> None:
    result = measured(lambda: ShortQueue("ok", PROGRAMMED))
    assert [(t.busy, t.waiting_share) for t in result.times] == [((), None)] * 4
    assert next(sentences(result)).endswith("is not known, because its queue is too short for a step.")


def test_a_step_that_cannot_be_captured_has_plain_times() -> None:
    result = measured(lambda: NoGraph("ok", PROGRAMMED))
    assert [(t.batch, t.cuda_graph) for t in result.times] == [(1, False), (8, False)]
    assert "The step was not captured as a CUDA graph." in next(sentences(result))


def test_several_calls_have_the_share_of_the_profiler() -> None:
    result = measured(lambda: ManyCalls("ok", PROGRAMMED))
    assert [(t.native, t.python_share) for t in result.times] == [((), 0.3), ((), None), ((), 0.3), ((), None)]


def test_a_graph_that_saves_nothing_is_not_advised() -> None:
    slow = Costs(step_ms=1.0, gpu_ms=20.0)
    assert "plain steps are enough" in next(sentences(measured(lambda: NullSession("ok", slow))))


def test_the_share_outside_of_overlapping_spans() -> None:
    assert outside_share((100, 200), [(90, 110), (120, 140), (130, 150), (190, 300), (300, 400)]) == 0.5
    assert outside_share((100, 200), []) == 1.0
    assert outside_share((100, 200), [(0, 500)]) == 0.0


class Doubled(torch.nn.Module):
    """Model of one operator."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        return input_ids.float()[..., None] * 2


FEEDS = {"input_ids": np.arange(32, dtype=np.int32).reshape(2, 16), "attention_mask": np.ones((2, 16), np.int32)}


def test_pytorch_without_a_graph_has_the_share_of_its_profiler() -> None:
    with TorchSession(Doubled(), "cpu", 0) as session:
        session.load(FEEDS)
        with session.observed(called) as has_one_call:
            assert not has_one_call
        share = session.python_share(3)
    assert share is not None
    assert 0 < share < 1


def test_the_share_is_not_known_for_code_that_was_compiled_for_a_cpu() -> None:
    compiled = torch.compile(Doubled(), backend="eager")
    with TorchSession(compiled, "cpu", 0) as session:
        session.load(FEEDS)
        assert session.python_share(1) is None


@pytest.fixture
def ort_session(tmp_path: Path) -> Iterator[OrtSession]:
    from onnx import TensorProto, helper, save

    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "s"]) for name in names]
    output = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["b", "s", 1])
    nodes = [
        helper.make_node("Mul", list(names), ["product"]),
        helper.make_node("Cast", ["product"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "axis"], ["hidden"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [2])
    graph = helper.make_graph(nodes, "product", inputs, [output], [axis])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    spec = BuildSpec("fp32", Device(), (Shape(2, 16),), False, tmp_path, OrtOptions())
    with OrtSession(spec, tmp_path / "model.onnx", SessionSettings()) as session:
        yield session  # type: ignore[misc]  # __enter__ of Session


def test_a_step_of_onnx_runtime_is_one_observed_call(ort_session: OrtSession) -> None:
    seen: list[int] = []

    def around(call: Callable[[], object]) -> object:
        before = ort_session.fetch().copy()
        call()
        seen.append(int((ort_session.fetch() != before).sum()))
        return None

    ort_session.load(FEEDS)
    with ort_session.observed(around) as has_one_call:
        assert has_one_call
        ort_session.step()
    # The output was 0 before, and the first of 32 products is 0.
    assert seen == [31]
    ort_session.step()
    assert len(seen) == 1


class Launched:
    """Graph or context that counts its launches."""

    count = 0

    def launch(self, *arguments: object) -> bool:
        self.count += 1
        return True

    replay = execute_async_v3 = launch


def observe_one_step(session: Session, launched: Launched) -> None:
    """Check that a step in the context makes one observed call, and a step after it none."""
    counts: list[int] = []

    def around(call: Callable[[], object]) -> object:
        result = call()
        counts.append(launched.count)
        return result

    with session.observed(around) as has_one_call:
        assert has_one_call
        session.step()
    session.step()
    assert (counts, launched.count) == ([1], 2)


def test_the_replay_of_a_graph_of_pytorch_is_one_observed_call() -> None:
    graph = Launched()
    with TorchSession(Doubled(), "cpu", 0) as session:
        session.load(FEEDS)
        session.graphs.add(TorchCaptured(graph, torch.zeros(1)))  # type: ignore[arg-type]
        observe_one_step(session, graph)


@pytest.mark.parametrize("replays", [False, True])
def test_a_step_of_tensorrt_is_one_observed_call(replays: bool) -> None:
    pytest.importorskip("cuda.bindings")
    from backends.tensorrt_.session.session import CapturedStep, TensorRTSession

    launched = Launched()
    session = TensorRTSession.__new__(TensorRTSession)
    session._context = launched  # type: ignore[assignment]
    session._stream = SimpleNamespace(handle=5)  # type: ignore[assignment]
    session._batch = ArrangedBatch({}, (1, 16))
    if replays:
        session.graphs.add(CapturedStep(launched, (1,)))  # type: ignore[arg-type]
    observe_one_step(session, launched)


TIMES = (
    LaunchTimes(1, 16, False, (4_000_000,), True, native=(3_000_000,), busy=(1_000_000,), steps=(4_000_000,)),
    LaunchTimes(1, 16, True, (100_000,), True, native=(90_000,), busy=(1_000_000,), steps=(1_000_000,)),
    LaunchTimes(8, 16, False, (4_000_000,), False, busy=(8_000_000,), steps=(8_000_000,)),
)


def test_the_table_has_a_row_for_each_shape_with_and_without_a_graph(make_record: MakeRecord) -> None:
    facts = {"shapes": {"8x16": {"no_cuda_graph": "no memory"}}}
    record = make_record(suite="launch", facts=facts, measurements=(), scores=LaunchResult(TIMES))
    table = rows(launch_tables([record]))
    assert [(row["batch"], row["graph"], row["Python"], row["GPU waits"]) for row in table] == [
        ("1", "no", "25.0%", "75.0%"), ("1", "yes", "10.0%", "0.0%"), ("8", "no", "", "0.0%")
    ]  # fmt: skip
    assert (table[0]["Python ms"], table[0]["step ms"], table[0]["GPU ms"]) == ("1.00", "4.00", "1.00")
    assert table[2]["notes"] == "not steady after warm-up; no CUDA graph: no memory"


@pytest.mark.parametrize("change", [{"enqueue": []}, {"batch": 0}, {"native": ["x"]}], ids=str)
def test_a_record_without_times_is_bad(make_record: MakeRecord, change: dict[str, object]) -> None:
    data = json_of(make_record(suite="launch", measurements=(), scores=LaunchResult(TIMES)))
    data["scores"]["times"][0] |= change
    with pytest.raises(BadRecord, match=r"scores\.times\[0\]\."):
        Record.from_json({**data, "schema": 1})


def test_the_plot_has_a_panel_for_each_kind_of_share(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(suite="launch", measurements=(), scores=LaunchResult(TIMES))
    waiting, python = panels_of([Row(record, LaunchResult(TIMES), 0)], 16)
    assert [(line.label, dict(line.points), line.dashed) for line in waiting.series] == [
        ("null fp32", {1: 0.75, 8: 0.0}, False), ("null fp32, CUDA graph", {1: 0.0}, True)
    ]  # fmt: skip
    assert [dict(line.points) for line in python.series] == [{1: 0.25}, {1: pytest.approx(0.1)}]
    write_record(tmp_path, record)
    (path,) = write_launch_plots(MachineFolder(tmp_path, "gpu-a"))
    assert path.name == "launch-tiny-sequence-length-16.svg"
    first = path.read_bytes()
    assert b"share of time for which the GPU waits for the host" in first
    write_launch_plots(MachineFolder(tmp_path, "gpu-a"))
    assert path.read_bytes() == first


def test_a_record_whose_plot_fails_is_named(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(folder: MachineFolder) -> list[Path]:
        raise OSError("no space left")

    monkeypatch.setattr("suites.launch.launch_plots.write_launch_plots", fails)
    write_record(tmp_path, make_record(suite="launch", measurements=(), scores=LaunchResult(TIMES)))
    assert report([str(tmp_path)]) == 1
    assert "its plots were not made: OSError: no space left" in capsys.readouterr().err


def test_a_run_writes_a_record_tables_and_a_plot(cli: Cli, tmp_path: Path) -> None:
    words = ("suite=launch", "backend=null", "null.gpu_ms=2", "null.python_ms=0.5", "batch=[1,2]", "sequence=[16]",
             "suite.seconds=0.02", "suite.warm_up_s=0.02", "suite.min_samples=2")  # fmt: skip
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "launch")
    assert isinstance(record.result, LaunchResult)
    assert [(t.batch, t.cuda_graph) for t in record.result.times] == [(1, False), (1, True), (2, False), (2, True)]
    assert "the GPU waits for the host" in " ".join(done.stdout.split())
    assert len(rows(table_in(tmp_path / "results", "launch").read_text(encoding="utf-8"))) == 4
    assert report([str(tmp_path / "results")]) == 0
    assert [path.name for path in (tmp_path / "results").rglob("*.svg")] == ["launch-none-sequence-length-16.svg"]


def test_sequences_of_several_lengths_are_refused(cli: Cli) -> None:
    done = cli("suite=launch", "backend=null", "lengths=uniform")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "suite=launch compares batches of full sequences; leave lengths=uniform out" in done.stderr
