"""Rows ranked by request time, their parts, and the comparison with GPU time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from timed_records import timed

from suites import choose, report
from suites.latency.figures import latency_rows
from suites.latency.gpu_and_request import NEAR, Pair, gpu_and_request_tables, pairs
from suites.latency.ranking import rankings
from suites.latency.tables import latency_tables
from suites.measuring.cpu_load import CpuLoad
from suites.records.measurement import COPY_OUT, END_TO_END, GPU, REQUEST_PARTS, Measurement
from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank
from suites.statistics.noise import LEAST, PathKey, find_noise, studies
from suites.statistics.validity import judged
from suites.tables.terminal import Style, end_text

MakeRecord = Callable[..., Record]
REFERENCE = ROOT / "results" / "reference"
H200 = "nvidia-h200-driver-580.159.04"
H100 = "nvidia-h100-80gb-hbm3-driver-580.159.04"


def with_request(record: Record, milliseconds: float, parts: dict[str, float] | None = None) -> Record:
    """Return the record with other request times, and with parts in ms."""

    def changed(m: Measurement) -> Measurement:
        time = round(milliseconds * 1e6 * (1 + 0.001 * m.process))
        return replace(m, samples=(time,) * len(m.samples)) if m.phase == END_TO_END else m

    measured = tuple(map(changed, record.measurements))
    model = next(m for m in measured if m.phase == END_TO_END)
    added = [replace(model, phase=phase, samples=(round(ms * 1e6),) * 20) for phase, ms in (parts or {}).items()]
    return replace(record, measurements=(*measured, *added))


def fast_on_the_gpu(make_record: MakeRecord, *parts: dict[str, float]) -> list[Record]:
    """Return trt, which is fastest on the GPU, and ort, which has the faster requests."""
    rows = [("trt", 1.0, 8.0), ("ort", 2.0, 3.0)]
    given = parts or (None, None)
    return [
        with_request(timed(make_record, (gpu, gpu * 1.01, gpu * 1.02), backend=name, precision="fp16"), request, part)
        for (name, gpu, request), part in zip(rows, given, strict=True)
    ]


def test_the_rank_decides_which_row_is_fastest(make_record: MakeRecord) -> None:
    records = fast_on_the_gpu(make_record)
    by_gpu, by_request = (rankings(records, {}, rank=rank)[0] for rank in Rank)
    for ranking, names, best in ((by_gpu, ["trt", "ort"], 1.0), (by_request, ["ort", "trt"], 3.0)):
        assert [item.row.record.cell.backend for item in ranking.rows] == names
        assert [item.fastest for item in ranking.rows] == [True, False]
        assert ranking.rows[0].row.best.p50 / 1e6 == pytest.approx(best, rel=0.03)


def test_a_record_without_requests_has_no_place_by_request(make_record: MakeRecord) -> None:
    record = timed(make_record, (1, 1, 1))
    without = replace(record, measurements=tuple(m for m in record.measurements if m.phase != END_TO_END))
    assert rankings([without], {}, rank=Rank.request) == []
    assert len(rankings([without], {})) == 1
    assert "ok: it has no time to rank" in latency_tables([without], rank=Rank.request)


def test_load_of_the_host_excludes_a_row_on_a_gpu_only_by_request(make_record: MakeRecord) -> None:
    record = fast_on_the_gpu(make_record)[0]
    load = CpuLoad(cpu_others=0.5, cpu_resolution=0.01, threads_used=1)
    busy = tuple(replace(m, telemetry=replace(m.telemetry, cpu=load)) for m in record.measurements)
    by_gpu, by_request = (latency_rows([replace(record, measurements=busy)], {}, rank)[0] for rank in Rank)
    assert by_gpu.contender.excluded == ""
    assert by_request.contender.excluded == "other processes took 50% of the CPU time"


def test_one_process_is_compared_by_the_spread_of_requests(make_record: MakeRecord) -> None:
    record = with_request(timed(make_record, tuple(1 + 0.01 * n for n in range(LEAST))), 5)
    found = studies([record])
    path = PathKey("gpu-a", "cuda", record.cell.backend, record.cell.precision, cuda_graph=False)
    steps, requests = (find_noise(found, replace(path, request=request), 32) for request in (False, True))
    assert steps is not None
    assert requests is not None
    assert requests.spread < steps.spread / 5  # the programmed spreads are 1% and 0.1%
    assert find_noise([study for study in found if not study.path.request], replace(path, request=True), 32) is None


PARTS = [dict(zip(REQUEST_PARTS, values, strict=True)) for values in ((0.2, 0.1, 0.1, 0.5, 3.3), (0, 0.1, 0.1, 1, 0.4))]


def test_the_table_of_parts_names_them_and_their_sum(make_record: MakeRecord) -> None:
    text = latency_tables(fast_on_the_gpu(make_record, *PARTS))
    table = text.partition("#### Parts of a request")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    rows = [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]
    assert [row["backend"] for row in rows] == ["ort fp16", "trt fp16"]
    assert (rows[1]["packing"], rows[1]["copy out"], rows[1]["compute"]) == ("200", "3,300", "500")
    assert [row["sum"] for row in rows] == ["1,600", "4,200"]


def test_old_records_have_no_table_of_parts(make_record: MakeRecord) -> None:
    text = latency_tables(fast_on_the_gpu(make_record))
    assert "#### Parts of a request" not in text
    assert "request p50 ms" in text


def pair_of(records: list[Record]) -> Pair:
    ((_, pair),) = pairs(records, {})
    return pair


def test_the_comparison_of_ranks_names_the_part_that_takes_the_time(make_record: MakeRecord) -> None:
    pair = pair_of(fast_on_the_gpu(make_record, *PARTS))
    assert (pair.by_gpu.name, pair.by_request.name) == ("trt fp16", "ort fp16")
    assert pair.ratio == pytest.approx(8 / 3, rel=0.01)
    assert pair.reason == "copy out: 3.300 ms instead of 0.400 ms"
    without = pair_of(fast_on_the_gpu(make_record))
    assert re.fullmatch(r"beyond the GPU: 6\.9\d\d ms instead of 0\.9\d\d ms", without.reason)
    text = gpu_and_request_tables(fast_on_the_gpu(make_record))
    assert "Within 5% of the lowest request time: 0 of 1 shapes." in text


def test_cells_of_a_cpu_are_not_compared(make_record: MakeRecord) -> None:
    assert gpu_and_request_tables([timed(make_record, (1, 1, 1), device="cpu")] * 2) == ""


def test_commands_rank_by_request(make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = fast_on_the_gpu(make_record)
    for record in records:
        write_record(tmp_path, record)
    assert choose.main(["--records", str(tmp_path), "--rank", "request"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Ranked by request time")
    assert re.search(r"winner      ort fp16, request p50 3\.00\d ms", text)
    assert choose.main(["--records", str(tmp_path), "--json"]) == 0
    ((choice,),) = [json.loads(capsys.readouterr().out)]
    assert (choice["rank"], choice["winner"]["backend"]) == ("gpu", "trt")
    assert report.main([str(tmp_path), "--rank", "request"]) == 0
    table = (tmp_path / "gpu-a" / "tables" / "tiny" / "latency.md").read_text()
    assert "#### Fastest row of each shape by request time" in table
    assert re.search(r"\| winner +\| request p50 ms \|", table)
    assert report.main([str(tmp_path), "--csv", "-", "--rank", "request"]) == 0
    rows = capsys.readouterr().out.splitlines()
    place = rows[-1].split(",")
    assert "request" in place
    style = Style("torch_eager/fp32", rank=Rank.request)
    end = end_text("latency", records, MachineFolder(tmp_path, "gpu-a"), style)
    assert "request p50 ms" in end
    assert end.index("ort fp16") < end.index("trt fp16")


def test_an_unknown_rank_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose.main(["--rank", "host"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("refused: argument --rank: invalid choice: 'host'")
    assert error.count("\n") == 1


def request_section() -> str:
    text = " ".join((ROOT / "docs" / "findings.md").read_text().split())
    return text.split("## Request time")[1].split("## ")[0]


def test_findings_about_requests_agree_with_the_records() -> None:
    """The figures of docs/findings.md."""
    folder, section = MachineFolder(REFERENCE, H200), request_section()
    found = pairs(folder.records("latency"), judged(folder.records("accuracy")))
    outputs = [pair for ranking, pair in found if ranking.workload.output]
    assert {item.row.record.harness for pair in outputs for item in (pair.by_gpu, pair.by_request)} == {4}
    near = [pair for pair in outputs if pair.ratio <= NEAR]
    assert f"is within 5% of the fastest request at {len(near)} of {len(outputs)} shapes" in section
    (far,) = [pair for pair in outputs if pair not in near]
    assert (far.by_gpu.row.record.cell.model, far.by_gpu.row.shape) == ("ms_marco_minilm", (32, 128))
    assert far.reason.startswith("copy out")
    times = [f"{item.request / 1e6:.3f} ms" for item in (far.by_gpu, far.by_request)]
    assert f"through torch.compile take {times[0]} and through ONNX Runtime {times[1]}" in section
    old = [
        pair
        for ranking, pair in found
        if (ranking.workload.model, ranking.workload.lengths, ranking.sequence) == ("bert_base", "full", 384)
    ]
    assert {(pair.by_gpu.row.record.cell.backend, pair.by_gpu.row.record.harness) for pair in old} == {
        ("trt_plugin", 1)
    }
    ratios = sorted(round(pair.ratio, 2) for pair in old)
    assert f"take {ratios[0]} to {ratios[-1]} times as long" in section
    last = old[-1].by_gpu
    assert f"GPU needs {last.row.best.p50 / 1e6:.2f} ms of {last.request / 1e6:.2f} ms" in section


def test_requests_of_the_h100_with_one_launch_agree_with_the_findings() -> None:
    records = [record for record in MachineFolder(REFERENCE, H100).records("latency") if record.harness == 4]
    every = [(ranking.workload.model, pair) for ranking, pair in pairs(records, {})]
    ((model, far),) = [(model, pair) for model, pair in every if pair.ratio > NEAR]
    ((nearest, close),) = [(model, pair) for model, pair in every if 1.03 < pair.ratio <= NEAR]
    section = request_section()
    assert f"is within 5% of the fastest request at {len(every) - 1} of {len(every)} shapes" in section
    assert (model, far.by_gpu.row.shape, far.by_gpu.name) == ("bge_small", (32, 128), "torch_compile fp16, graph")
    assert (far.by_request.name, far.reason.partition(":")[0]) == ("trt fp16, graph", "copy out")
    times = [f"{item.request / 1e6:.3f} ms" for item in (far.by_gpu, far.by_request)]
    assert f"through torch.compile take {times[0]} and through the parser in FP16 {times[1]}" in section
    assert (nearest, close.by_gpu.row.shape) == ("ms_marco_minilm", (32, 128))
    assert [pair.name for pair in (close.by_gpu, close.by_request)] == [far.by_gpu.name, far.by_request.name]
    assert close.by_gpu.row.record.environment.uuid != close.by_request.row.record.environment.uuid
    times = [f"{item.request / 1e6:.3f} ms" for item in (close.by_gpu, close.by_request)]
    assert f"with {times[0]} and {times[1]} for the same two paths, which ran on two cards" in section
    found = [pair for model, pair in every if model == "bert_base"]
    (other,) = [pair for pair in found if pair.ratio > 1]
    assert (
        f"the same row is the fastest by both ranks at {len(found) - 1} of {len(found)} shapes of version 4" in section
    )
    times = [f"{item.request / 1e6:.3f} ms" for item in (other.by_gpu, other.by_request)]
    assert [item.name for item in (other.by_gpu, other.by_request)] == [
        "torch_packed fp8, graph", "torch_compile fp8, graph"]  # fmt: skip
    assert other.by_gpu.row.shape == (8, 128)
    assert f"packed PyTorch in FP8 take {times[0]}, and of torch.compile in FP8 {times[1]}" in section
    plugins = {
        (cell.precision, cell.output, row.shape): f"{row.best_request[1] / 1e6:.3f} ms"
        for record in records
        if (cell := record.cell).backend == "trt_plugin" and cell.model == "bert_base"
        for row in latency_rows([record], {})
        if row.best_request is not None
    }
    embedding = [plugins[precision, "embedding", (batch, 128)] for precision in ("int8", "fp16") for batch in (1, 128)]
    assert (
        f"take {embedding[0]} at 1 x 128 and {embedding[1]} at 128 x 128 in INT8, and {embedding[2]} and {embedding[3]}"
        in section
    )
    hidden = [plugins[precision, "hidden", (128, 128)] for precision in ("int8", "fp16")]
    assert f"With hidden states they take {hidden[0]} and {hidden[1]} at 128 x 128" in section


def test_an_older_timing_of_a_backend_is_not_compared(make_record: MakeRecord) -> None:
    trt, ort = fast_on_the_gpu(make_record)
    newer = with_request(timed(make_record, (1.1, 1.1, 1.1), backend="trt", precision="fp16"), 2)
    pair = pair_of([replace(trt, harness=1), replace(ort, harness=1), replace(newer, harness=4)])
    assert (pair.by_gpu.row.record.harness, pair.ratio) == (4, 1)
    assert pair.by_request is pair.by_gpu


def test_every_pair_of_the_h100_beyond_5_percent_has_a_reason_and_a_finding() -> None:
    folder = MachineFolder(REFERENCE, H100)
    found = pairs(folder.records("latency"), judged(folder.records("accuracy")))
    far = [(ranking, pair) for ranking, pair in found if pair.ratio > NEAR]
    assert all(pair.reason for _, pair in far)
    others = [(ranking, pair) for ranking, pair in far if pair.by_gpu.row.record.harness < 4]
    section = request_section()
    assert {pair.by_gpu.row.record.cell.backend for _, pair in others} == {"trt"}
    assert {ranking.workload.model for ranking, _ in others} == {"all-MiniLM-L6-v2"}
    every = [
        pair
        for ranking, pair in found
        if ranking.workload.model == "all-MiniLM-L6-v2" and pair.by_gpu.row.record.harness < 4
    ]
    assert f"is within 5% at {len(every) - len(others)} of {len(every)} shapes" in section
    ratios = sorted(round(pair.ratio, 2) for _, pair in others)
    assert f"take {ratios[0]} to {ratios[-1]} times as long as the fastest ones" in section
    assert f"at most {max(pair.by_gpu.request for _, pair in others) / 1e6:.3f} ms" in section
    for _, pair in others:
        parser, fastest = (item.request - item.row.times[item.graph].p50 for item in (pair.by_gpu, pair.by_request))
        assert parser > fastest
        assert pair.by_request.row.record.cell.precision == "fp16"


def test_every_pair_of_the_h200_beyond_5_percent_has_a_reason_and_a_finding() -> None:
    folder, section = MachineFolder(REFERENCE, H200), request_section()
    found = pairs(folder.records("latency"), judged(folder.records("accuracy")))
    groups: dict[tuple[str, str], list[Pair]] = {}
    for ranking, pair in found:
        if not ranking.workload.output and pair.by_gpu.row.record.harness < 3:
            groups.setdefault((ranking.workload.model, ranking.workload.lengths), []).append(pair)
    far = {key: [pair for pair in group if pair.ratio > NEAR] for key, group in groups.items()}
    assert all(pair.reason for group in far.values() for pair in group)
    assert sum(map(len, far.values())) == sum(pair.ratio > NEAR for _, pair in found) - 1  # ms_marco_minilm, version 4
    large, lognormal = far.pop(("bert_large", "full")), far.pop(("bert_base", "lognormal"))
    packed = [*large, *lognormal, *far.pop(("bert_base", "full"))]
    assert {pair.by_gpu.row.record.cell.options["layout"] for pair in packed} == {"packed"}
    ratios = [f"{pair.ratio:.2f}" for pair in sorted(large, key=lambda pair: pair.ratio)]
    assert (len(groups["bert_large", "full"]), len(lognormal), lognormal[0].by_gpu.row.shape) == (8, 1, (128, 384))
    assert f"BERT-large differs at {len(large)} of 8 shapes, by {ratios[0]} to {ratios[-1]} times" in section
    assert f"with lognormal lengths at 128 x 384 by {lognormal[0].ratio:.2f} times" in section
    minilm = far.pop(("minilm", "full"))
    every = len(groups["minilm", "full"])
    assert f"minilm on the H200, before version 3, is within 5% at {every - len(minilm)} of {every} shapes" in section
    names = [(pair.by_gpu.name, pair.by_request.name, pair.by_gpu.row.shape) for pair in minilm]
    assert names == [(*["trt int8, graph"] * 2, (1, 32)), ("trt int8, graph", "ort fp16, graph", (1, 128))]
    first, last = (f"{pair.ratio:.2f} times as long as those of" for pair in minilm)
    assert f"take {first} another INT8 engine at 1 x 32, and {last} ONNX Runtime in FP16 at 1 x 128" in section
    assert not any(far.values())


def test_phases_of_committed_records_stay_readable() -> None:
    record = next(r for r in MachineFolder(REFERENCE, H200).records("latency") if r.outcome == "ok" and r.harness < 3)
    (row, *_) = latency_rows([record], {})
    assert row.best_request is not None
    assert row.parts(row.best_request[0]) == {}
    assert (GPU in {m.phase for m in record.measurements}, COPY_OUT in {m.phase for m in record.measurements}) == (
        True,
        False,
    )
