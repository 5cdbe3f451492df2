"""suite=ceilings: operations, figures, left-out precisions, refusals, and shares in latency tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, json_of, measure_run, table_in
from markdown_rows import rows

from backends.base import BuildSpec, Device, Session, Shape, Unsupported
from backends.null_.null import Costs, NullSession
from backends.operations import LeftOut, Operation, OperationSession
from backends.torch_.torch_operations import TorchOperations, TorchOperationSession, missing_product
from suites.ceilings.measure import measure
from suites.ceilings.result import Ceiling, CeilingsResult
from suites.ceilings.suite import CeilingsQuestion
from suites.latency.tables import latency_section, latency_tables
from suites.measuring.clock import Effort
from suites.records.record import BadRecord, Record
from suites.records.results_folder import read_records

QUICK = Effort(0.01, 0.01, 2, 3, 0.5)
WORDS = ("suite=ceilings", "backend=torch_operations", "device=cpu", "ceilings.sizes=[32]", "ceilings.megabytes=1",
         "suite.seconds=0.01", "suite.warm_up_s=0.01", "suite.min_samples=2")  # fmt: skip
SIZES = {"layers": 2, "hidden": 64, "attention": 64, "key_value": 64, "intermediate": 128}
ARTIFACTS = {
    "inputs": {"notes": {"tokens": "random", "shapes": {"2x16": {"tokens": 32, "cut": 0}}}},
    "weights": {"sizes": SIZES},
}
MakeRecord = Callable[..., Record]


@pytest.fixture
def session() -> Iterator[TorchOperationSession]:
    with TorchOperationSession(Device()) as opened:
        yield opened  # type: ignore[misc]  # __enter__ of Session


@pytest.mark.parametrize(
    ("operation", "work", "unit", "figure"),
    [
        (Operation("product", "fp16", 1000), 2e9, "TFLOP/s", 2.0),
        (Operation("product", "int8", 1000), 2e9, "TOP/s", 2.0),
        (Operation("copy", "", 10**6), 2e6, "GB/s", 2.0),
        (Operation("device copy", "", 10**6), 2e6, "GB/s", 2.0),
        (Operation("triad", "", 10**6), 3e6, "GB/s", 3.0),
        (Operation("pageable to device", "", 10**6), 1e6, "GB/s", 1.0),
        (Operation("kernel launch"), 0, "µs", 1000.0),
        (Operation("graph launch and wait"), 0, "µs", 1000.0),
    ],
    ids=lambda value: value.name if isinstance(value, Operation) else "",
)
def test_the_figure_of_a_millisecond(operation: Operation, work: float, unit: str, figure: float) -> None:
    assert (operation.work, operation.unit) == (work, unit)
    assert operation.figure(1e6) == pytest.approx(figure)


def test_the_figure_is_that_of_the_median_and_the_ceiling_is_the_fastest_size() -> None:
    slow = Ceiling(Operation("product", "fp32", 1000), (1_000_000, 4_000_000, 9_000_000), True)
    quick = Ceiling(Operation("product", "fp32", 1000), (2_000_000,), True)
    assert (slow.figure, quick.figure) == (0.5, 1.0)
    result = CeilingsResult((slow, quick, Ceiling(Operation("copy", "", 8), (1,), True)))
    assert (result.fastest_product("fp32"), result.fastest_product("fp16")) == (1.0, None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_product_is_that_of_its_operands(session: TorchOperationSession, precision: str) -> None:
    session.select(Operation("product", precision, 32))
    session.step()
    output = session.fetch().copy()
    assert output.shape == (32, 32)
    assert np.isfinite(output).all()
    # A product of two random matrices has entries of about the root of its rows; INT8 has a standard deviation of 73.
    scale = {"int8": 73.6**2}.get(precision, 1.0) * np.sqrt(32)
    assert 0.7 * scale < output.std() < 1.4 * scale
    session.step()
    np.testing.assert_array_equal(session.fetch(), output)


def test_a_triad_adds_three_times_an_array_and_a_copy_is_equal(session: TorchOperationSession) -> None:
    session.select(Operation("triad", "", 64))
    session.step()
    triad = session.fetch()
    assert triad.shape == (16,)
    assert 0 <= triad.min() < triad.max() <= 4
    session.select(Operation("copy", "", 64))
    session.step()
    assert 0 <= session.fetch().min() < session.fetch().max() <= 1


def test_a_cpu_leaves_out_formats_of_gpus(session: TorchOperationSession) -> None:
    operations, left_out = session.operations((16, 32), 64)
    assert [o.precision for o in operations if o.name == "product"] == [
        name for name in ("fp32", "fp16", "bf16", "int8") for _ in range(2)
    ]
    assert [o for o in operations if o.name != "product"] == [Operation("copy", "", 64), Operation("triad", "", 64)]
    assert [left.precision for left in left_out] == ["tf32", "fp8"]


@pytest.mark.parametrize(
    ("capability", "missing"),
    [((9, 0), set()), ((8, 9), set()), ((8, 0), {"fp8"}), ((7, 5), {"fp8", "tf32", "bf16"}),
     ((7, 0), {"fp8", "tf32", "bf16", "int8"})],
)  # fmt: skip
def test_a_gpu_leaves_out_precisions_by_its_compute_capability(capability: tuple[int, int], missing: set[str]) -> None:
    device = Device("cuda", name="CARD", compute_capability=capability)
    reasons = {name: missing_product(device, name) for name in ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")}
    assert {name for name, reason in reasons.items() if reason} == missing
    if "fp8" in missing:
        has = ".".join(map(str, capability))
        assert reasons["fp8"] == f"fp8 needs compute capability 8.9; CARD has {has}"


class Faulty(TorchOperationSession):
    """Session in which products in BF16 fail."""

    def select(self, operation: Operation) -> None:
        if operation.precision == "bf16":
            raise RuntimeError("no kernel\nmore")
        super().select(operation)


def test_an_operation_that_fails_is_left_out_and_the_others_run() -> None:
    session: Session = Faulty(Device())
    run = measure_run(lambda: session, (Shape(16, 16),), {}, QUICK)
    measured = measure(run, CeilingsQuestion((16,), 1))
    result = measured.result
    assert isinstance(result, CeilingsResult)
    assert LeftOut("product", "bf16", "RuntimeError: no kernel") in result.left_out
    assert [c.operation.precision for c in result.ceilings] == ["fp32", "fp16", "int8", "", ""]
    assert all(len(ceiling.samples) >= 2 for ceiling in result.ceilings)
    assert measured.failures == {}


class SimulatedGpu(NullSession, OperationSession):
    """Session in which an operation takes 1 ms of the device and its launch 0.1 ms of the host; a graph, 0 ms."""

    def __init__(self) -> None:
        super().__init__("ok", Costs(step_ms=0.1, gpu_ms=1.0))

    def operations(self, sizes: Sequence[int], size_in_bytes: int) -> tuple[list[Operation], list[LeftOut]]:
        launches = [f"{name} launch{wait}" for name in ("kernel", "graph") for wait in ("", " and wait")]
        return [Operation("product", "fp16", 1000), *map(Operation, launches)], []

    def select(self, operation: Operation) -> None:
        self.graphs.clear()
        self.load({"input_ids": np.zeros((1, 2), np.int32)})


def test_a_launch_is_timed_back_to_back_or_with_its_wait(simulated: Callable[[int], None]) -> None:
    simulated(0)
    run = measure_run(SimulatedGpu, (Shape(16, 16),), {}, Effort(1.0, 1.0, 50, 200, 0.1))
    result = measure(run, CeilingsQuestion((16,), 1)).result
    assert isinstance(result, CeilingsResult)
    figures = {ceiling.operation.name: ceiling.figure for ceiling in result.ceilings}
    assert figures["product"] == pytest.approx(2.0)
    assert figures["kernel launch"] == pytest.approx(1000, rel=0.15)
    assert figures["kernel launch and wait"] == pytest.approx(1100, rel=0.15)
    assert figures["graph launch and wait"] == pytest.approx(1000, rel=0.15)
    assert figures["graph launch"] < figures["kernel launch and wait"]


def test_a_run_writes_a_record_and_a_table_and_is_reused(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*WORDS)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout
    (record,) = read_records(tmp_path / "results", "ceilings")
    assert record.cell.shapes == ((32, 32),)
    assert (record.cell.model, record.cell.options["megabytes"]) == ("none", 1)
    assert Record.from_json({**json_of(record), "schema": 1}).result == record.result
    table = table_in(tmp_path / "results", "ceilings").read_text()
    listed = {(row["operation"], row["precision"]): row for row in rows(table)}
    assert listed["product", "fp32"]["unit"] == "TFLOP/s"
    assert listed["copy", ""]["size"] == "1 MiB"
    assert "left out: TF32 is a number format of GPU tensor cores" in table
    again = fast_cli(*WORDS)
    assert "rerun=true measures again" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("backend=ort",), "suite=ceilings runs no model; use backend=torch_operations instead of backend=ort"),
        (("precision=fp16",), "suite=ceilings measures every precision; leave precision=fp16 out"),
        (("ceilings.sizes=[40]",), "ceilings.sizes=40 is not a multiple of 16, which INT8 and FP8 products need"),
        (("ceilings.megabytes=0",), "ceilings.megabytes=0 must be at least 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_request_that_cannot_run_is_refused_in_one_line(words: tuple[str, ...], message: str, fast_cli: Cli) -> None:
    done = fast_cli(*WORDS, *words)
    assert done.returncode == 2
    assert done.stderr == f"refused: {message}\n"


def test_other_suites_cannot_use_single_operations(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli("suite=latency", "backend=torch_operations", "device=cpu", "batch=[1]", "sequence=[16]")
    (record,) = read_records(tmp_path / "results", "latency")
    assert record.outcome == "unsupported", done.stderr
    assert record.reason == "this backend runs single operations and no model; use suite=ceilings"


def ceilings(make_record: MakeRecord, precision: str = "fp32", **fields: object) -> Record:
    """Return a record whose product runs at 0.002 TFLOP/s."""
    scores = {"ceilings": [{"name": "product", "precision": precision, "size": 100, "samples": [10**6],
                            "steady": True}], "left_out": []}  # fmt: skip
    return make_record(suite="ceilings", model="none", measurements=(), checks=(), scores=scores, **fields)


def test_a_latency_row_has_its_rate_and_share(make_record: MakeRecord) -> None:
    """2 x 16 tokens in 0.5 ms (graph): a layer has 2 (4 E^2 + 2 E I) + 4 E S = 69,632 operations for a token."""
    record = make_record(artifacts=ARTIFACTS)
    (row,) = rows(latency_section([record], ceilings=[ceilings(make_record)]))
    rate = 2 * 32 * 69_632 / 500_000 / 1e3
    assert row["TFLOP/s"] == "0.00891"
    assert float(row["TFLOP/s"]) == pytest.approx(rate, rel=0.01)
    assert row["% of ceiling"] == "446%"


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"device": "cpu"}, {"outcome": "failed"}], ids=str)
def test_the_ceiling_is_that_of_the_precision_and_the_device(make_record: MakeRecord, change: dict[str, str]) -> None:
    record = make_record(artifacts=ARTIFACTS)
    text = latency_section([record], ceilings=[ceilings(make_record, **change)])
    assert "| TFLOP/s" in text
    assert "% of ceiling |" not in text


def test_threads_of_a_cpu_have_their_own_ceiling(make_record: MakeRecord) -> None:
    record = make_record(device="cpu", options={"threads": 1}, artifacts=ARTIFACTS)
    for threads, shown in ((1, True), (2, False)):
        measured = ceilings(make_record, device="cpu", options={"threads": threads})
        assert ("% of ceiling |" in latency_tables([record], ceilings=[measured])) is shown


def test_packed_tokens_count_without_padding(make_record: MakeRecord) -> None:
    """12 of 2 x 16 tokens: a packed backend computes 12 with 6 keys each, another one 32 with 16."""
    notes = {"tokens": "random", "shapes": {"2x16": {"tokens": 12, "cut": 0}}}
    artifacts = {"inputs": {"notes": notes}, "weights": {"sizes": SIZES}}
    padded, packed = (make_record(backend=name, artifacts=artifacts) for name in ("torch_eager", "torch_packed"))
    rate = {row["backend"]: float(row["TFLOP/s"]) for row in rows(latency_section([padded, packed]))}
    one = 2 * (4 * 64**2 + 2 * 64 * 128)
    assert rate["torch_eager"] == pytest.approx(2 * 32 * (one + 4 * 64 * 16) / 5e8, rel=0.01)
    assert rate["torch_packed"] == pytest.approx(2 * 12 * (one + 4 * 64 * 6) / 5e8, rel=0.01)


def test_an_old_record_has_the_sizes_of_a_known_name(make_record: MakeRecord) -> None:
    shown = [
        make_record(model="minilm", weights="trained"),
        make_record(model="bert_base", model_version="9a448840ea179a7b"),
    ]
    for record in shown:
        assert "| TFLOP/s" in latency_section([record])
    for record in (make_record(), make_record(model="bert_base", model_version="another architecture")):
        assert "| TFLOP/s" not in latency_section([record])


def test_a_new_record_has_the_sizes_of_its_model(fast_cli: Cli, tmp_path: Path) -> None:
    architecture = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
    done = fast_cli(
        "backend=torch_eager", "device=cpu", "weights=random", "batch=[1]", "sequence=[16]", "suite.seconds=0.01",
        "suite.warm_up_s=0.01", "suite.min_samples=2", f"model.architecture={{model_type: bert, {architecture}}}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    assert json_of(record)["artifacts"]["weights"]["sizes"] == SIZES


@pytest.mark.parametrize("samples", [[], [0], "x"], ids=str)
def test_a_record_without_times_is_bad(make_record: MakeRecord, samples: object) -> None:
    data = json_of(ceilings(make_record))
    data["scores"]["ceilings"][0]["samples"] = samples
    with pytest.raises(BadRecord, match=r"scores\.ceilings\[0\]\.samples"):
        Record.from_json({**data, "schema": 1})


def test_the_backend_runs_no_model_in_a_precision_that_it_lacks() -> None:
    spec = BuildSpec("tf32", Device(), (Shape(16, 16),), False, Path())
    with pytest.raises(Unsupported, match="TF32 is a number format of GPU tensor cores"):
        TorchOperations().check(spec)
