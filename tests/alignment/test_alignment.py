"""suite=alignment with programmed step times: sizes, padding to multiples, advice, variants of a model, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import word_models
from conftest import TINY, Cli, json_of, measure_run, table_in

from backends.base import Session, Shape, Unsupported
from backends.model.reference import ModelReference
from backends.null_.null import Costs, NullSession, null_hidden
from suites.alignment.alignment_advice import noise, penalty, policies, sentences, variant_change
from suites.alignment.alignment_plots import relative_times, write_alignment_plots
from suites.alignment.measure import feeds_of, measure
from suites.alignment.result import AlignmentResult, SizeVariant, Sweep, TimedShape, padded_size
from suites.alignment.suite import AlignmentQuestion, TimedRun, joined
from suites.alignment.tables import alignment_tables, columns_of, model_rows, size_rows
from suites.measuring.clock import Effort
from suites.records.record import BadRecord, Record, write_record
from suites.records.results_folder import MachineFolder, read_records
from suites.report import main as report
from suites.tables.series_plot import row_labels

MakeRecord = Callable[..., Record]
EFFORT = Effort(0.05, 0.05, 5, 10, 0.1)
SEQUENCES = Sweep("sequence", 4, (15, 16, 17), (8,))
BATCHES = Sweep("batch", 16, (4,), (4,))
SIZES = (15, 16, 17, 24)
STEP_MS = {15: 3.0, 16: 2.0, 17: 4.0, 24: 3.0}
PROGRAMMED = Costs(other={f"step_ms 4x{size}": cost for size, cost in STEP_MS.items()})
RUNS = (*(TimedRun(Shape(4, size)) for size in SIZES), TimedRun(Shape(4, 16), True), TimedRun(Shape(4, 24), True))
QUESTION = AlignmentQuestion((SEQUENCES, BATCHES), RUNS, False, (Shape(4, 16),))


def arrays_of(shapes: set[Shape]) -> dict[str, np.ndarray]:
    arrays = {}
    for shape in shapes:
        ids = np.full((shape.batch, shape.sequence), 7, np.int32)
        arrays |= {f"{shape}/input_ids": ids, f"{shape}/attention_mask": np.ones_like(ids)}
        arrays |= {f"{shape}/reference": null_hidden(ids), f"{shape}/rows": np.arange(shape.batch)}
    return arrays


def measured(
    session: Callable[[], Session], question: AlignmentQuestion = QUESTION, cuda_graph: bool = False
) -> AlignmentResult:
    shapes = {run.shape for run in question.runs}
    answer = measure(measure_run(session, sorted(shapes), arrays_of(shapes), EFFORT, cuda_graph), question)
    assert all(check.cosine == pytest.approx(1.0) for check in answer.checks)
    assert isinstance(answer.result, AlignmentResult)
    return answer.result


@pytest.mark.usefixtures("exact_clock")
def test_programmed_times_are_recovered_and_compared() -> None:
    result = measured(lambda: NullSession("ok", PROGRAMMED))
    assert [(shape.sequence, shape.padded, shape.milliseconds) for shape in result.shapes] == [
        (15, False, 3.0), (16, False, 2.0), (17, False, 4.0), (24, False, 3.0), (16, True, 2.0), (24, True, 3.0)
    ]  # fmt: skip
    assert [penalty(result, SEQUENCES, size, 8) for size in (15, 16, 17)] == [0.5, None, pytest.approx(1 / 3)]
    plain, padded = policies(result, SEQUENCES)
    assert (plain.mean, padded.mean) == (3.0, pytest.approx(7 / 3))
    assert padded.milliseconds == {15: 2.0, 16: 2.0, 17: 3.0}
    assert list(sentences(result)) == [
        "Sequence lengths 15 to 17 at batch 4: pad sequences to a multiple of 8; it saves 22.2% of the mean time, and "
        "33.3% at size 15.",
        "Batch sizes 4 to 4 at sequence length 16: do not pad batches; padding to a multiple of 4 adds 0.0% to the "
        "mean time.",
    ]
    assert relative_times(result, SEQUENCES) == pytest.approx({15: 1.6, 16: 1.0, 17: 32 / 17, 24: 1.0})


class Masked(NullSession):
    """Session in which a mask with padding doubles the time of a step, and which remembers its inputs."""

    seen: tuple[tuple[int, bool], ...] = ()

    def copy_in(self, feeds: object) -> None:
        super().copy_in(feeds)  # type: ignore[arg-type]
        mask = feeds["attention_mask"]  # type: ignore[index]
        self.padded = not mask.all()
        type(self).seen += ((mask.shape[1], self.padded),)

    def step(self) -> None:
        super().step()
        if self.padded:
            super().step()


@pytest.mark.usefixtures("exact_clock")
def test_padded_sequences_count_with_the_time_of_their_mask() -> None:
    Masked.seen = ()
    result = measured(lambda: Masked("ok", PROGRAMMED))
    assert result.milliseconds(SEQUENCES, 16, True) == 4.0
    assert policies(result, SEQUENCES)[1].milliseconds == {15: 4.0, 16: 2.0, 17: 6.0}
    assert next(sentences(result)) == (
        "Sequence lengths 15 to 17 at batch 4: do not pad sequences; padding to a multiple of 8 adds 33.3% to the mean "
        "time."
    )
    # Each run without padding is loaded once more before the first pass, for the check of its output.
    order = list(dict.fromkeys(Masked.seen))
    assert order == [(15, False), (16, False), (17, False), (24, False), (16, True), (24, True)]
    assert Masked.seen[-6:] == tuple(reversed(order))
    assert all(shape.samples and shape.shift == 0 and shape.again for shape in result.shapes)


@pytest.mark.usefixtures("exact_clock")
def test_a_backend_that_removes_padding_gets_no_padding() -> None:
    packed = replace(QUESTION, sweeps=(SEQUENCES,), runs=RUNS[:4], removes_padding=True)
    result = measured(lambda: NullSession("ok", PROGRAMMED), packed)
    assert [policy.multiple for policy in policies(result, SEQUENCES)] == [1]
    assert list(sentences(result)) == [
        "Sequence lengths 15 to 17 at batch 4: the backend computes no padding, so do not pad; a length that is no "
        "multiple of 8 takes on average 41.7% more than the next multiple."
    ]


@pytest.mark.usefixtures("exact_clock")
@pytest.mark.parametrize("can_capture", [True, False])
def test_a_cuda_graph_is_used_if_the_session_has_one(can_capture: bool) -> None:
    class OnGpu(NullSession):
        def capture(self) -> None:
            if not can_capture:
                raise Unsupported("no graph here")
            super().capture()

    result = measured(lambda: OnGpu("ok", Costs(step_ms=5.0, gpu_ms=1.0)), cuda_graph=True)
    assert {(shape.cuda_graph, shape.milliseconds) for shape in result.shapes} == {
        (can_capture, 1.0 if can_capture else 5.0)
    }


def test_the_mask_of_a_padded_run_leaves_out_the_last_token() -> None:
    shape = Shape(2, 4)
    arrays = arrays_of({shape})
    assert feeds_of(TimedRun(shape), arrays)["attention_mask"].all()
    mask = feeds_of(TimedRun(shape, True), arrays)["attention_mask"]
    assert mask.tolist() == [[1, 1, 1, 0]] * 2
    assert arrays[f"{shape}/attention_mask"].all()


def test_sizes_to_measure_include_those_that_others_are_padded_to() -> None:
    assert [padded_size(size, 8) for size in (1, 8, 9)] == [8, 8, 16]
    assert Sweep("batch", 128, (28, 29, 30, 31, 32, 33), (8, 64)).targets() == (28, 29, 30, 31, 32, 33, 40, 64)


def timed(milliseconds: float, batch: int = 4, sequence: int = 16, steady: bool = True) -> TimedShape:
    return TimedShape(batch, sequence, (int(milliseconds * 1e6),), steady)


VARIANTS = (
    SizeVariant(shapes=(timed(10.0),)),
    SizeVariant("vocab_size", 61, 64, shapes=(timed(10.2),)),
    SizeVariant("intermediate_size", 100, 104, shapes=(timed(9.9),)),
    SizeVariant("intermediate_size", 100, 128, shapes=(timed(9.18),)),
    SizeVariant("hidden_size", 60, 64, exact=False, shapes=(timed(8.16),)),
    SizeVariant("hidden_size", 60, 96, exact=False, outcome="failed", reason="no memory"),
    SizeVariant(shapes=(timed(10.4),)),
)
RESULT = AlignmentResult(
    (Sweep("batch", 16, (3, 4), (4,)),),
    (timed(9.0, 3, steady=False), timed(10.0, 4), replace(timed(11.0, 4), padded=True)),
    VARIANTS,
)


def test_variants_are_compared_with_the_mean_of_both_rounds_of_the_model() -> None:
    assert noise(RESULT) == pytest.approx(0.04)
    changes = [variant_change(RESULT, variant) for variant in VARIANTS[1:6]]
    assert changes == [
        pytest.approx(0.0),
        pytest.approx(-0.0294, abs=1e-4),
        pytest.approx(-0.1),
        pytest.approx(-0.2),
        None,
    ]
    spread = "and two rounds of the same model differ by 4.0%"
    assert list(sentences(RESULT))[1:] == [
        "vocab_size 61: do not pad it, because no product uses it: the embedding is a lookup; 64 adds 0.0% to the time "
        f"of a step, {spread}.",
        "intermediate_size 100: pad it with zeros, which keeps the outputs; 128 saves 10.0% of the time of a step, "
        f"{spread}.",
        "hidden_size 60: choose 64 before training, because padding is not exact; 64 saves 20.0% of the time of a "
        f"step, {spread}.",
        "1 of 3 times were not steady, so small changes may be noise.",
    ]


def test_the_tables_have_all_sizes_and_variants(make_record: MakeRecord) -> None:
    text = alignment_tables([make_record(suite="alignment", device="cpu", measurements=(), scores=RESULT)])
    assert "| batch sizes 3 to 4 at sequence length 16 | no padding | 9.50        |        |            |" in text
    (sweep,) = RESULT.sweeps
    by_size = {row[0]: dict(zip(columns_of(sweep), row, strict=True)) for row in size_rows(RESULT, sweep, False)}
    assert (by_size["3"]["to 4"], by_size["3"]["ms/seq"], by_size["3"]["notes"]) == (
        "-10.0%", "3.00", "not steady after warm-up"
    )  # fmt: skip
    assert (by_size["4"]["multiple of"], by_size["4"]["to 4"], by_size["4"]["padded ms"]) == ("4", "", "11.0")
    assert [row[0] for row in model_rows(RESULT)] == [variant.name or "the model itself" for variant in VARIANTS]
    failed = model_rows(RESULT)[5]
    assert failed[-1] == "failed: no memory"
    assert [row[3] for row in model_rows(RESULT)][:5] == ["", "same", "same", "same", "other"]


def test_a_gain_below_the_difference_of_the_passes_is_not_advised() -> None:
    """Padding saves 3% of the mean time, but the same sizes differ by 4% between the passes."""
    sweep, shapes = Sweep("batch", 16, (3, 4), (4,)), (timed(10.64, 3), timed(10.0, 4))
    quiet = AlignmentResult((sweep,), shapes)
    noisy = replace(quiet, shapes=tuple(replace(s, again=(int(s.samples[0] * 1.04),)) for s in shapes))
    assert (quiet.noise, noisy.noise) == (0.0, pytest.approx(0.04))
    assert next(sentences(quiet)).endswith("it saves 3.1% of the mean time, and 6.0% at size 3.")
    assert next(sentences(noisy)).endswith(
        "do not pad batches; padding to a multiple of 4 saves 3.1% of the mean time, and the two passes differ by 4.0%."
    )


def test_a_failed_variant_does_not_fail_the_cell() -> None:
    unknown = SizeVariant("hidden_size", 60, 64, False, outcome="unsupported", reason="trained")
    planned = (SizeVariant(), SizeVariant("vocab_size", 61, 64), unknown, SizeVariant())
    question = replace(QUESTION, variants=planned)
    assert question.failed("failed", "why") is None
    numbers, results = [], [AlignmentResult(QUESTION.sweeps, RESULT.shapes, planned)]
    following = question.following(0)
    while following is not None:
        numbers.append(following.number)
        failed = following.failed("failed", f"round {following.number}")
        assert isinstance(failed, AlignmentResult)
        results.append(failed)
        following = following.following(0)
    assert numbers == [1, 2, 4]
    whole = joined(results)
    assert isinstance(whole, AlignmentResult)
    assert [variant.reason for variant in whole.variants] == ["round 1", "round 2", "trained", "round 4"]
    assert whole.shapes == RESULT.shapes


def test_the_model_of_a_round() -> None:
    model = ModelReference("random", identity="d" * 64, architecture={"model_type": "distilbert", "dim": 60})
    variants = (SizeVariant(), SizeVariant("vocab_size", 61, 64), SizeVariant("hidden_size", 60, 64, exact=False))
    rounds = [replace(QUESTION, variants=variants, number=number).model(model) for number in range(4)]
    assert rounds[:2] == [model, model]
    assert (rounds[2].padded, rounds[2].identity) == ({"vocab_size": 64}, "")
    assert rounds[3].architecture == {"model_type": "distilbert", "dim": 64}


@pytest.mark.parametrize("change", [{"shapes": []}, {"sweeps": [{"axis": "batch"}]}, {"variants": [{}]}], ids=str)
def test_a_record_without_times_is_bad(make_record: MakeRecord, change: dict[str, object]) -> None:
    data = json_of(make_record(suite="alignment", measurements=(), scores=RESULT))
    data["scores"] |= change
    with pytest.raises(BadRecord, match=r"scores\."):
        Record.from_json({**data, "schema": 1})


def test_a_plot_for_each_sweep(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, make_record(suite="alignment", measurements=(), scores=RESULT))
    (path,) = write_alignment_plots(MachineFolder(tmp_path, "gpu-a"))
    assert path.name == "alignment-tiny-batch-sizes-3-to-4-at-sequence-length-16.svg"
    assert b"time of a sequence, smallest = 1" in path.read_bytes()


def test_rows_with_other_options_have_them_in_their_labels(make_record: MakeRecord) -> None:
    records = [
        make_record(suite="alignment", backend=backend, options={"fusion": fusion}, measurements=(), scores=RESULT)
        for backend, fusion in (("ort", "on"), ("ort", "off"), ("torch_eager", "on"))
    ]
    assert row_labels(records) == ["ort fp32, fusion=on", "ort fp32, fusion=off", "torch_eager fp32"]


QUICK = ("suite=alignment", "batch=[4]", "sequence=[16]", "suite.seconds=0.01", "suite.warm_up_s=0.01",
         "suite.min_samples=2")  # fmt: skip


def test_a_run_measures_the_sizes_around_the_shapes_of_the_command(cli: Cli, tmp_path: Path) -> None:
    ranges = ("alignment.sequence_range=1", "alignment.batch_range=1", "alignment.multiples=[8,4]")
    done = cli(*QUICK, *ranges, "backend=null", "null.step_ms=0.1")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "alignment")
    assert record.cell.shapes == ((4, 16),)
    options = {name: record.cell.options[name] for name in ("sequence_range", "batch_range", "multiples")}
    assert options == {"sequence_range": 1, "batch_range": 1, "multiples": [4, 8]}
    result = record.result
    assert isinstance(result, AlignmentResult)
    assert result.sweeps == (Sweep("sequence", 4, (15, 16, 17), (4, 8)), Sweep("batch", 16, (3, 4, 5), (4, 8)))
    assert [(s.batch, s.sequence, s.padded) for s in result.shapes] == [
        (3, 16, False), (4, 15, False), (4, 16, False), (4, 16, True), (4, 17, False), (4, 20, False), (4, 20, True),
        (4, 24, False), (4, 24, True), (5, 16, False), (8, 16, False),
    ]  # fmt: skip
    assert "no padding" in done.stdout
    assert "Sequence lengths 15 to 17 at batch 4: " in " ".join(done.stdout.split())
    assert "padded to" in table_in(tmp_path / "results", "alignment").read_text(encoding="utf-8")
    assert report([str(tmp_path / "results")]) == 0
    assert len(list((tmp_path / "results").rglob("plots/alignment-none-*.svg"))) == 2


ARCHITECTURE = (
    f"model.architecture={{model_type: bert, {', '.join(f'{n}: {s}' for n, s in TINY.items())}, vocab_size: 61}}"
)


def test_variants_of_a_model_are_measured_between_two_rounds_of_the_model(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(
        *QUICK, "backend=torch_eager", "device=cpu", "weights=random", ARCHITECTURE, "alignment.sequence_range=0",
        "alignment.batch_range=1", "alignment.multiples=[2]", "alignment.model_multiples=[3,64]",
        "alignment.model_sizes=[vocab_size,hidden_size]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "alignment")
    result = record.result
    assert isinstance(result, AlignmentResult)
    assert [(v.name, v.size, v.value, v.exact, len(v.shapes)) for v in result.variants] == [
        ("", 0, 0, True, 1), ("vocab_size", 61, 63, True, 1), ("vocab_size", 61, 64, True, 1),
        ("hidden_size", 64, 66, False, 1), ("", 0, 0, True, 1),
    ]  # fmt: skip
    assert record.cell.options["models"] == [["vocab_size", 63], ["vocab_size", 64], ["hidden_size", 66]]
    assert {(s.batch, s.sequence) for v in result.variants for s in v.shapes} == {(4, 16)}
    assert record.artifacts.weights is not None
    # Batches 3 to 5, and 6 for the padding of 5: the outputs of the first round.
    assert [check.batch for check in record.checks] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lengths=uniform",), "suite=alignment chooses the lengths of sequences itself; leave lengths=uniform out"),
        (("alignment.sequence_range=0", "alignment.batch_range=0"), "are both 0; set one of them"),
        (("alignment.multiples=[]",), "alignment.multiples=[] is empty"),
        (("alignment.multiples=[1]",), "alignment.multiples=1 must be between 2 and 512"),
        (("alignment.sequence_range=65",), "alignment.sequence_range=65 must be between 0 and 64"),
        (("alignment.model_sizes=[hiden_size]",), "did you mean hidden_size?"),
        (("backend=trt", "model=minilm"), "an engine with as many profiles builds for hours; use profiles=dynamic"),
        (
            ("backend=trt", "model=minilm", "profiles=dynamic"),
            "use profiles=dynamic with trt.min=[1,8] trt.max=[16,32]",
        ),
        (
            ("backend=ort", "ort.provider=tensorrt", "model=minilm", "profiles=dynamic"),
            "use profiles=dynamic with ort.min=[1,8] ort.max=[16,32]",
        ),
        (
            ("backend=torch_tensorrt", "model=minilm", "profiles=dynamic"),
            "use profiles=dynamic with torch_tensorrt.min=[1,8] torch_tensorrt.max=[16,32]",
        ),
    ],
)
def test_requests_that_cannot_be_measured_are_refused(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    backend = () if any(word.startswith("backend=") for word in arguments) else ("backend=null",)
    done = cli(*QUICK, *backend, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_sequences_are_not_padded_beyond_the_positions_of_the_model(cli: Cli, tmp_path: Path) -> None:
    done = cli(*QUICK[:2], "sequence=[512]", *QUICK[3:], "backend=null", "null.step_ms=0.1", "alignment.batch_range=0",
               "alignment.sequence_range=1", "alignment.multiples=[8,100]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "alignment")
    assert isinstance(record.result, AlignmentResult)
    assert record.result.sweeps == (Sweep("sequence", 4, (511, 512), (8,)),)


def test_a_provider_without_engines_has_no_profiles_to_check(tmp_path: Path) -> None:
    ort, torch = (
        question_of(tmp_path, f"backend={name}", "model=minilm", "weights=random") for name in ("ort", "torch_eager")
    )
    assert ort.sweeps == torch.sweeps


def question_of(tmp_path: Path, *overrides: str) -> AlignmentQuestion:
    question = word_models.request(tmp_path, "suite=alignment", "batch=[4]", "sequence=[16]", *overrides).question
    assert isinstance(question, AlignmentQuestion)
    return question


def test_trained_weights_have_no_variant_with_another_hidden_size(
    tiny: Callable[[str], tuple[Path, str]], tmp_path: Path
) -> None:
    folder, _ = tiny("bert")
    multiples = "alignment.model_multiples=[24]"
    question = question_of(tmp_path, "backend=torch_eager", f"model.path={folder}", multiples)
    found = [(v.name, v.size, v.value, v.exact, v.outcome) for v in question.variants]
    assert found == [
        ("", 0, 0, True, ""), ("vocab_size", 30522, 30528, True, ""), ("intermediate_size", 128, 144, True, ""),
        ("hidden_size", 64, 72, False, "unsupported"), ("", 0, 0, True, ""),
    ]  # fmt: skip
    assert "trained weights cannot be padded; use weights=random" in question.variants[3].reason
    only_hidden = question_of(
        tmp_path, "backend=torch_eager", f"model.path={folder}", multiples, "alignment.model_sizes=[hidden_size]"
    )
    assert [variant.name for variant in only_hidden.variants] == ["hidden_size"]
    assert only_hidden.following(0) is None


def test_a_model_without_known_sizes_has_a_reason_for_each_size(tmp_path: Path) -> None:
    question = question_of(tmp_path, "backend=torch_eager", "model.hub=own/model")
    assert {variant.reason for variant in question.variants} == {
        "the sizes of the model are not known before its download; give its folder as model.path="
    }
    assert question.following(0) is None


def test_aligned_sizes_and_backends_without_a_model_have_no_variants(tmp_path: Path) -> None:
    aligned = f"model.architecture={{model_type: bert, {', '.join(f'{n}: {s}' for n, s in TINY.items())}}}"
    sizes = "alignment.model_sizes=[intermediate_size,hidden_size]"
    assert question_of(tmp_path, "backend=torch_eager", "weights=random", aligned, sizes).variants == ()
    assert question_of(tmp_path, "backend='null'").variants == ()


def test_packed_tokens_are_measured_without_padding(tmp_path: Path) -> None:
    packed = question_of(tmp_path, "backend=torch_packed", "weights=random")
    assert packed.removes_padding
    assert not any(run.padded for run in packed.runs)
    padded = question_of(tmp_path, "backend=torch_eager", "weights=random")
    assert not padded.removes_padding
    assert [run.shape.sequence for run in padded.runs if run.padded] == [8, 16, 24, 32]


def test_no_size_is_padded_beyond_twice_the_largest_size(tmp_path: Path) -> None:
    question = question_of(tmp_path, "backend='null'", "alignment.multiples=[4,8,32,64]")
    assert [(sweep.axis, sweep.multiples) for sweep in question.sweeps] == [
        ("sequence", (4, 8, 32)), ("batch", (4, 8))
    ]  # fmt: skip
    lone = question_of(tmp_path, "backend='null'", "alignment.multiples=[64]", "alignment.sequence_range=0")
    result = AlignmentResult(lone.sweeps, tuple(timed(1.0, run.shape.batch) for run in lone.runs))
    assert list(sentences(result)) == [
        "Batch sizes 1 to 8 at sequence length 16: no multiple is near enough to pad to."
    ]
