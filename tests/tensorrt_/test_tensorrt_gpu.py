"""Builder and session with a tiny model on a GPU, and each error of a build.

The tests need TensorRT in the interpreter that SUITES_TRT_PYTHON or inference-suites.yaml names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import PYTHON_WITH_TENSORRT as PYTHON
from conftest import TINY_MODELS

from backends.base import Artifact, BuildSpec, Shape
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.inputs.request_inputs import prepare_request_sets
from backends.json_codec import from_json, to_json
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from backends.model_output import LAST_HIDDEN, Output
from backends.onnx_.marked_outputs import marked_points, prepare_marked
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe
from suites.layers.suite import LayersQuestion
from suites.measuring.clock import Effort
from suites.measuring.machine import gpus
from suites.running.job import A, BuildJob, Job, Measured, MeasureJob, ProbeJob
from suites.running.launch import Answer, Interpreter, call
from suites.suite import Question
from suites.switching.suite import SwitchingQuestion

WORKER_SECONDS = 1800
"""Time limit of a worker. Builders that run at the same time wait for each other, so an engine that builds in 30 s
alone can take many minutes in one of several test processes."""

pytestmark = [
    pytest.mark.gpu,
    # A test starts several workers. This guard against hangs must not end it before their own limits do.
    pytest.mark.timeout(4 * WORKER_SECONDS),
    pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible"),
    pytest.mark.skipif(not PYTHON, reason="no Python with TensorRT is named"),
]

SHAPES = (Shape(2, 16), Shape(4, 32))
INT8 = {"samples": 8, "sequence": 24, "placement": "all", "activation": "int8", "reduce_range": "off"}
OPTIONS = {
    "min": [1, 16],
    "opt": [4, 32],
    "max": [4, 32],
    # A low level times fewer tactics. The results of these tests do not depend on it.
    "optimization_level": 1,
}

Tiny = Callable[[str], tuple[Path, str]]


UNEVEN = Lengths("uniform", "random", 3)
EFFORT = Effort(warm_up_s=0.1, seconds=0.02, min_samples=2, max_samples=5, tolerance=0.1)


@dataclass(frozen=True)
class LabJob:
    """The job of a build, and the measurement of its artifact."""

    build: BuildJob
    inputs: Path
    release: str
    suite: str = "latency"
    question: Question = field(default_factory=Question)
    effort: Effort = EFFORT

    def measure(self, artifact: Artifact) -> MeasureJob:
        spec = self.build.spec
        return MeasureJob(self.suite, self.build.backend, spec, artifact, self.inputs, self.effort, self.question)

    def with_cache(self, cache: Path) -> LabJob:
        return replace(self, build=replace(self.build, spec=replace(self.build.spec, cache=cache)))

    def with_onnx(self, **changes: Any) -> LabJob:
        source = self.build.source
        assert source.onnx is not None
        onnx_file = replace(source.onnx, **changes)
        return replace(self, build=replace(self.build, source=replace(source, onnx=onnx_file)))


class Lab:
    """Runner of the build and measure stages for a tiny model in workers, as in the pipeline."""

    def __init__(self, folder: Path, sha256: str, cache: ArtifactCache, jobs: Path) -> None:
        self.folder, self.sha256, self.cache, self.jobs = folder, sha256, cache, jobs
        self.messages: list[tuple[str, bool]] = []

    def origin(self, output: Output = LAST_HIDDEN) -> InputSource:
        return InputSource(self.folder, self.sha256, UNEVEN, [], 0, "cpu", self.cache, output)

    def job(
        self, precision: str = "fp16", backend: str = "trt", output: Output = LAST_HIDDEN, **options: Any
    ) -> LabJob:
        quantization = {**INT8, **options.pop("quantization", {})} if precision == "int8" else {}
        recipe = from_json(QuantizationOptions, quantization)
        typed = from_json(describe(backend).options, {**OPTIONS, **options})
        spec = BuildSpec(precision, gpus()[0].device, SHAPES, True, self.cache.root, typed, recipe, output=output)
        probed = self.run(ProbeJob(backend, spec)).result
        assert probed is not None
        assert probed.form is not None, probed
        source = prepare_source(self.folder, self.sha256, probed.form, recipe, ["a line"], 0, self.cache, output=output)
        inputs = prepare_inputs(self.origin(output), SHAPES)
        spec = replace(spec, tokens={shape: inputs.notes["shapes"][str(shape)]["tokens"] for shape in SHAPES})
        return LabJob(BuildJob(backend, spec, source), inputs.path, probed.release)

    def run(self, job: Job[A]) -> Answer[A]:
        folder = self.jobs / f"{job.stage}-{len(list(self.jobs.iterdir()))}"
        return call(
            job, folder, Interpreter(PYTHON), WORKER_SECONDS, lambda text, keep: self.messages.append((text, keep))
        )

    def built(self, job: LabJob) -> Artifact:
        answer = self.run(job.build)
        assert answer.result is not None, answer
        return answer.result

    def measured(self, job: LabJob) -> tuple[Artifact, Measured]:
        built = self.built(job)
        answer = self.run(job.measure(built))
        assert answer.result is not None, answer
        assert answer.result.failures == {}
        return built, answer.result


@pytest.fixture
def lab(tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path) -> Lab:
    return Lab(*tiny("bert"), shared_cache, tmp_path)


@pytest.mark.parametrize(
    ("precision", "options", "least"),
    [
        ("fp32", {}, 0.999999),
        ("fp16", {"profiles": "dynamic"}, 0.9999),
        ("fp16", {"profiles": "buckets", "keep_fp32": ["*LayerNorm*"]}, 0.9999),
        ("int8", {}, 0.98),
    ],
)
def test_outputs_match_the_reference_plain_and_as_a_graph(
    precision: str, options: dict[str, Any], least: float, lab: Lab
) -> None:
    built, result = lab.measured(lab.job(precision, **options))
    assert len(result.checks) == 8
    assert [check.nonfinite for check in result.checks] == [0] * 8
    assert min(check.cosine or 0.0 for check in result.checks) >= least
    notes = built.notes
    assert notes["engine_bytes"] > 0
    assert notes["layers"]
    assert (notes["layers_in_fp32"] > 0) == bool(options.get("keep_fp32"))


def embedding(*pooling: str, normalize: bool = True) -> Output:
    return Output("embedding", pooling, normalize, per_token=False)


LOGITS, SPANS = Output("logits", per_token=False), Output("spans")


@pytest.mark.parametrize(
    ("backend", "precision", "output", "options", "least"),
    [
        ("trt_plugin", "fp16", embedding("mean"), {}, 0.9999),
        ("trt_plugin", "fp16", embedding("mean", "weightedmean"), {"pad_to_multiple_of": 8}, 0.9999),
        ("trt_plugin", "fp16", embedding("cls", "lasttoken", normalize=False), {}, 0.9999),
        ("trt_plugin", "int8", embedding("mean"), {}, 0.98),
        ("trt_plugin", "fp16", embedding("mean", "max", "lasttoken"), {"layout": "fixed"}, 0.9999),
        ("trt_plugin", "fp16", LOGITS, {}, 0.999),
        ("trt_plugin", "fp16", SPANS, {}, 0.999),
        ("trt", "fp16", embedding("mean"), {}, 0.9999),
        ("trt", "fp16", LOGITS, {}, 0.999),
    ],
)
def test_outputs_after_the_encoder_match_the_reference(
    backend: str, precision: str, output: Output, options: dict[str, Any], least: float,
    shared_cache: ArtifactCache, tmp_path: Path,
) -> None:  # fmt: skip
    """Pooling and heads are layers of the engine. The head has random weights."""
    head = "BertForQuestionAnswering" if output == SPANS else "BertForSequenceClassification"
    labels = {"num_labels": 2 if output == SPANS else 3}
    architecture = {**TINY_MODELS["bert"], "architectures": [head], **labels}
    checkpoint = find_checkpoint(ModelReference("random", architecture=architecture), shared_cache)
    lab = Lab(checkpoint.folder, checkpoint.identity, shared_cache, tmp_path)
    profiles = {"profiles": "per_shape" if options.get("layout") == "fixed" else "dynamic"}
    _, result = lab.measured(lab.job(precision, backend, output, **profiles, **options))
    assert len(result.checks) == 8
    assert [check.nonfinite for check in result.checks] == [0] * 8
    assert min(check.cosine or 0.0 for check in result.checks) >= least


@pytest.mark.parametrize(
    "options",
    [
        {"version_compatible": True},
        {"refit": True},
        {"hardware_compatible": True},
        {"verbosity": "none"},
        {"workspace_mb": 2048, "timing_iterations": 2, "aux_streams": 0, "tactic_sources": ["cublas_lt"]},
    ],
    ids=" ".join,
)
def test_engines_with_each_option_of_the_builder_run(options: dict[str, Any], lab: Lab) -> None:
    job = lab.job("fp16", **options)
    if "lean runtime" in (answer := lab.run(job.build)).reason:
        assert answer.outcome == "unavailable"
        pytest.skip("TensorRT's lean runtime is not installed")
    built, result = lab.measured(job)
    assert min(check.cosine or 0.0 for check in result.checks) >= 0.9999
    assert ("layers" in built.notes) == (options.get("verbosity") != "none")


def test_a_file_that_is_no_plugin_library_is_refused(lab: Lab) -> None:
    library = lab.jobs / "nothing.so"
    library.write_bytes(b"no library")
    answer = lab.run(lab.job("fp16", plugin_libraries=[str(library)]).build)
    assert answer.outcome == "unsupported"
    assert f"cannot load {library}" in answer.reason


@pytest.mark.parametrize(
    ("options", "graphs"),
    [
        ({"profiles": "dynamic"}, [False, True]),
        ({"profiles": "per_shape"}, [False]),
        ({"profiles": "per_shape", "contexts": "per_profile"}, [False, True]),
        ({"profiles": "per_shape", "engines": "per_shape"}, [False, True]),
    ],
)
def test_outputs_after_changes_of_shape_equal_those_of_a_new_context(
    options: dict[str, Any], graphs: list[bool], lab: Lab
) -> None:
    """Plain steps and kept graphs. Issue 2648 of NVIDIA/TensorRT reports a fault with one context per profile."""
    _, result = lab.measured(switching(lab, lab.job("fp16", **options)))
    assert [part["cuda_graph"] for part in to_json(result.result)["parity"]] == graphs
    assert ("keep graphs" in result.facts.no_cuda_graph) == (graphs == [False])
    assert all(part["difference"] == 0 for part in to_json(result.result)["parity"])
    assert len(result.measurements) == len(graphs)
    first, *_, plain = [
        opening for opening in to_json(result.result)["openings"] if opening["of"] not in ("captures", "kept graphs")
    ]
    one_shape_each = options.get("contexts") == "per_profile" or options.get("engines") == "per_shape"
    contexts = [f"context {number}" for number in (range(1, len(SHAPES) + 1) if one_shape_each else (1,))]
    before = ["import", "device", "plugins", "read and verify", "deserialize"]
    assert list(first["ns"]) == [*before, *contexts, "buffers"]
    assert plain["bytes"]["buffers"] >= 0
    assert to_json(result.facts)["memory"]["opening"] == plain["bytes"]
    assert result.facts.cuda_module_loading in ("", "LAZY", "EAGER")
    for timing in to_json(result.result)["device"]:
        assert len(timing["first"]) + timing["overtaken"] == 2
        assert all(0 < again < 5_000_000 for again in timing["again"])
    changed = next(change for change in to_json(result.result)["transitions"] if change["from"] != change["to"])
    # A context with one shape keeps it, so a change of shape only selects the context.
    assert ("context" if one_shape_each else "input shape") in changed["samples"]["parts"]


def switching(lab: Lab, job: LabJob) -> LabJob:
    sets = prepare_request_sets(lab.origin(), SHAPES, SHAPES)
    question = SwitchingQuestion(SHAPES, {"some": (((0, 1, 1, 0),), ((1, 0),))}, repeats=2, cold_starts=0)
    effort = replace(job.effort, pairs_s=1.0, replay_s=1.0)
    return replace(job, suite="switching", inputs=sets.path, question=question, effort=effort)


def test_packed_tokens_replay_kept_graphs_for_some_transitions(lab: Lab) -> None:
    _, result = lab.measured(
        switching(lab, lab.job("fp16", "trt_plugin", profiles="dynamic", gelu="cubic", products="matmul"))
    )
    assert [part["difference"] for part in to_json(result.result)["parity"]] == [0, 0]
    kept = to_json(result.result)["parity"][1]
    assert 0 < kept["replayed"] < kept["transitions"]
    assert (result.facts.graphs or 0) > len(SHAPES)


def test_contexts_that_need_more_than_the_allowed_memory_are_refused(lab: Lab) -> None:
    job = switching(lab, lab.job("fp16", contexts="per_profile", memory_mb=1))
    answer = lab.run(job.measure(lab.built(job)))
    assert answer.outcome == "failed"
    assert "2 contexts need" in answer.reason
    assert "1 MiB are available" in answer.reason


BERT_CASES = [
    ("fp32", {"layout": "fixed"}, 0.999999),
    ("fp16", {}, 0.9999),
    ("fp16", {"gelu": "sigmoid"}, 0.9999),
    ("fp16", {"gelu": "tanh"}, 0.9999),
    ("fp16", {"gelu": "exported_erf", "products": "convolution"}, 0.9999),
    ("fp16", {"gelu": "ordered_erf", "products": "convolution"}, 0.9999),
    ("fp16", {"gelu": "sigmoid", "flat_gelu": True}, 0.9999),
    ("fp16", {"gelu": "plugin"}, 0.999),
    ("fp16", {"tactic_heuristic": True, "builder_threads": 4}, 0.9999),
    ("fp16", {"gelu": "cubic"}, 0.9999),
    ("fp16", {"gelu": "cubic", "layout": "fixed"}, 0.9999),
    # The plugin makes cuBLASLt accumulate in FP16.
    ("fp16", {"gelu": "cubic", "layout": "fixed", "products": "plugin"}, 0.99),
    ("fp16", {"gelu": "cubic", "layout": "fixed", "products": "convolution"}, 0.9999),
    ("fp16", {"gelu": "cubic", "products": "matmul", "profiles": "dynamic"}, 0.9999),
    ("fp16", {"gelu": "cubic", "products": "fully_connected"}, 0.9999),
    ("fp16", {"gelu": "cubic", "products": "matmul", "constraints": "obey"}, 0.9999),
    ("fp16", {"gelu": "cubic", "products": "matmul", "pad_to_multiple_of": 8}, 0.9999),
    ("int8", {}, 0.95),
    ("int8", {"gelu": "cubic"}, 0.95),
    ("int8", {"attention": "fp16", "norms": "fp16"}, 0.98),
    ("int8", {"scale_max": "off"}, 0.95),
    ("int8", {"constraints": "obey"}, 0.95),
    ("int8", {"layout": "fixed"}, 0.95),
    ("int8", {"quantization": {"leave_out": ["*layer.0/*"]}}, 0.98),
    ("int8", {"quantization": {"shift": True, "smooth": 0.75}}, 0.95),
    ("int8", {"layout": "fixed", "quantization": {"shift": True}}, 0.95),
    ("int8", {"pad_to_multiple_of": 8}, 0.95),
]
"""Precision, options, and the smallest allowed cosine. GELU in its exact variants makes a build three times as long in
FP16, so cases for other options use the cubic, which is the default with INT8. They name the product, because its
default depends on GELU."""

FAMILY_CASES = [
    ("fp32", {"gelu": "cubic", "layout": "fixed"}, 0.999999),
    ("fp16", {"gelu": "cubic", "layout": "fixed"}, 0.9999),
    ("fp16", {"gelu": "cubic"}, 0.9999),
    ("int8", {}, 0.95),
    ("int8", {"layout": "fixed"}, 0.95),
]
"""Cases for families other than BERT: each precision in each layout that has it."""

OTHER_FAMILIES = ("roberta", "xlm-roberta", "distilbert", "electra")


@pytest.mark.parametrize(
    ("family", "precision", "options", "least"),
    [
        *(("bert", *case) for case in BERT_CASES),
        *((family, *case) for family in OTHER_FAMILIES for case in FAMILY_CASES),
    ],
)
def test_plugins_match_the_reference_plain_and_as_a_graph(
    family: str, precision: str, options: dict[str, Any], least: float, tiny: Tiny, shared_cache: ArtifactCache,
    tmp_path: Path,
) -> None:  # fmt: skip
    lab = Lab(*tiny(family), shared_cache, tmp_path)
    built, result = lab.measured(lab.job(precision, "trt_plugin", **options))
    assert len(result.checks) == 8
    assert [check.nonfinite for check in result.checks] == [0] * 8
    assert min(check.cosine or 0.0 for check in result.checks) >= least
    assert built.notes["padded_heads"] is True


@pytest.mark.parametrize("layout", ["packed", "fixed"])
def test_marked_points_of_plugins_match_the_graph(layout: str, lab: Lab) -> None:
    job = lab.job("fp16", "trt_plugin", layout=layout)
    onnx = export_onnx(lab.folder, lab.sha256, lab.cache)
    points = marked_points(onnx)
    inputs = prepare_marked(lab.origin(), onnx, points, SHAPES[-1])
    build = replace(job.build, source=replace(job.build.source, marked=tuple(points)))
    question = LayersQuestion(0, len(points))
    job = replace(job, build=build, suite="layers", inputs=inputs.path, question=question)
    layers: Any = lab.measured(job)[1].result["layers"]
    assert [layer["point"] for layer in layers] == points
    assert all(layer["nonfinite"] == 0 and layer["relative_error"] < 0.01 for layer in layers)


def test_padded_int8_attention_at_a_length_with_kernels(
    shared_cache: ArtifactCache, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SHAPES", (Shape(2, 128), Shape(4, 128)))
    lab = Lab(*tiny("bert"), shared_cache, tmp_path)
    job = lab.job("int8", "trt_plugin", layout="fixed", min=[1, 128], opt=[4, 128], max=[4, 128])
    built, result = lab.measured(job)
    notes = built.notes
    assert (notes["attention"], notes["attention_unfused"]) == ("int8", [])
    assert all(check.nonfinite == 0 and (check.cosine or 0.0) >= 0.95 for check in result.checks)


def test_packed_sequences_longer_than_the_embedding_plugin_supports(
    shared_cache: ArtifactCache, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SHAPES", (Shape(2, 512),))
    lab = Lab(*tiny("bert"), shared_cache, tmp_path)
    _, result = lab.measured(
        lab.job("fp16", "trt_plugin", min=[1, 16], opt=[2, 512], max=[2, 512], gelu="cubic", products="matmul")
    )
    assert all((check.cosine or 0.0) >= 0.9999 for check in result.checks)


@pytest.mark.parametrize("layout", ["packed", "fixed"])
def test_a_bad_batch_is_refused_and_the_next_shape_is_measured(layout: str, lab: Lab) -> None:
    job = lab.job("fp16", "trt_plugin", layout=layout, gelu="cubic", products="matmul")
    artifact = lab.built(job)
    bad_shape, good_shape = SHAPES
    ones = np.ones((bad_shape.batch, bad_shape.sequence), np.int32)
    empty, broken, longer = ones.copy(), ones.copy(), np.pad(ones, ((0, 0), (0, 1)), constant_values=1)
    empty[1], broken[0, 3] = 0, 0

    def measured(mask: np.ndarray) -> Answer[Measured]:
        with np.load(job.inputs) as inputs:
            arrays = dict(inputs)
        arrays |= {f"{bad_shape}/{name}": mask for name in ("input_ids", "attention_mask", "token_type_ids")}
        np.savez(lab.jobs / "bad.npz", **arrays)
        return lab.run(replace(job, inputs=lab.jobs / "bad.npz").measure(artifact))

    for mask, reason in (
        (empty, "sequence 1 of the batch has no token"),
        (broken, "sequence 0 of the batch has tokens"),
    ):
        answer = measured(mask)
        assert answer.result is not None, answer
        assert list(answer.result.failures) == [str(bad_shape)]
        assert reason in answer.result.failures[str(bad_shape)]
        measured_shapes = {(row.batch, row.sequence) for row in answer.result.measurements}
        assert measured_shapes == {(good_shape.batch, good_shape.sequence)}
    beyond = measured(longer)
    assert beyond.outcome == "unsupported"
    assert f"shape {bad_shape.batch}x{bad_shape.sequence + 1} is in no optimization profile" in beyond.reason


def test_a_truncated_plan_is_not_run_and_is_rebuilt_with_a_message(lab: Lab) -> None:
    # Its own cache: another test process must not read the damaged plan, and the first build must not find a plan.
    job = lab.job().with_cache(lab.jobs / "own-cache")
    built = lab.built(job)
    assert any(text.startswith("building") for text, _ in lab.messages) or built.seconds < 2
    plan = built.path
    content = plan.read_bytes()
    plan.write_bytes(content[:-100])
    refused = lab.run(job.measure(built))
    assert refused.outcome == "failed"
    assert "the plan differs from the one that was built" in refused.reason
    lab.messages.clear()
    rebuilt = lab.built(job)
    assert [text for text, keep in lab.messages if keep] == [
        f"cached engine {plan.parent.name} is damaged; building it again"
    ]
    assert lab.run(job.measure(rebuilt)).outcome == "ok"


def test_a_second_build_uses_the_cache(lab: Lab) -> None:
    job = lab.job("fp32")
    first = lab.built(job)
    lab.messages.clear()
    assert lab.built(job) == first
    assert lab.messages == []


def test_a_node_that_neither_parser_nor_plugins_support_is_named(lab: Lab) -> None:
    job = lab.job()
    source = job.build.source
    assert source.onnx is not None
    model = onnx.load(source.onnx.path)
    last = model.graph.node[-1]
    last.op_type, last.name = "NoSuchPlugin", "the/odd/one"
    path = lab.jobs / "odd.onnx"
    onnx.save(model, str(path))
    answer = lab.run(job.with_onnx(path=path, sha256="0" * 64).build)
    assert answer.outcome == "unsupported"
    assert "NoSuchPlugin" in answer.reason
    assert "the/odd/one" in answer.reason
    assert "trt.plugin_libraries" in answer.reason


def test_an_onnx_file_above_the_opset_of_the_release_is_refused(lab: Lab) -> None:
    job = lab.job()
    if not job.release.startswith("tensorrt 8"):
        pytest.skip("its parser reads opset 19")
    source = job.build.source
    assert source.onnx is not None
    answer = lab.run(job.with_onnx(notes={**source.onnx.notes, "opset": 19}, sha256="1" * 64).build)
    assert answer.outcome == "unsupported"
    assert "has opset 19 and TensorRT 8.6.0 reads up to 17" in answer.reason


def test_too_little_memory_is_named_as_the_reason(lab: Lab) -> None:
    """The process of the test allocates nearly all of the device's memory while the builder runs."""
    from cuda.bindings import runtime

    from backends.cuda import checked

    checked(runtime.cudaSetDevice(0))
    free, _ = checked(runtime.cudaMemGetInfo())
    pointer = checked(runtime.cudaMalloc(free - (1200 << 20)))
    try:
        answer = lab.run(lab.job("fp16", profiles="dynamic", max=[2048, 512], opt=[2048, 512]).build)
    finally:
        checked(runtime.cudaFree(pointer))
    assert answer.outcome == "failed", answer
    assert "memory" in answer.reason


def test_implicit_calibration_gives_an_engine_or_is_refused_with_advice(lab: Lab) -> None:
    answer = lab.run(lab.job("int8", quantization={"scheme": "implicit", "method": "entropy"}).build)
    if answer.outcome == "ok":
        assert list((lab.cache.root / "calibration").glob("*entropy*"))
    else:
        assert answer.outcome == "unsupported", answer
        assert "quantization.scheme=explicit" in answer.reason


def test_concurrent_builders_lose_no_timings(lab: Lab) -> None:
    from concurrent.futures import ThreadPoolExecutor

    # First each job builds in its own cache. The common cache must be at least as large as the larger one.
    jobs = [lab.job("tf32", aux_streams=number).with_cache(lab.jobs / f"alone-{number}") for number in (1, 2)]
    assert [lab.run(job.build).outcome for job in jobs] == ["ok", "ok"]
    alone = [path.stat().st_size for path in lab.jobs.glob("alone-*/timing/*.bin")]
    builds = [job.with_cache(lab.jobs / "common").build for job in jobs]
    folders = [lab.jobs / f"both-{number}" for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(
                lambda j, f: call(j, f, Interpreter(PYTHON), WORKER_SECONDS, lambda text, keep: None), builds, folders
            )
        )
    assert [answer.outcome for answer in answers] == ["ok", "ok"]
    (timings,) = (lab.jobs / "common" / "timing").glob("*.bin")
    assert timings.stat().st_size >= max(alone) > 0
