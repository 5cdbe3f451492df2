"""suite=kernels: classes of real names, times of profilers, tools that are not installed, tables, and runs on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Cli, json_of, measure_run
from markdown_rows import rows

from backends.base import Session, Shape, Unavailable, Unsupported
from backends.kernel_times import KernelTime, ProfiledStep, StepProfile, idle_between, median_step
from backends.null_.null import Costs, NullSession, null_hidden
from backends.ort_.trace import read_trace
from suites.kernels.classes import CLASSES, kernel_class, times_by_class
from suites.kernels.measure import measure
from suites.kernels.profiler_tools import TOOLS, ncu_kernels, nsys_step
from suites.kernels.result import KernelsResult
from suites.kernels.suite import KernelsQuestion
from suites.kernels.tables import kernel_class_tables
from suites.measuring.clock import Effort
from suites.records.record import BadRecord, Record
from suites.records.results_folder import MachineFolder, read_records
from suites.tables.terminal import Style, end_text

MakeRecord = Callable[..., Record]

QUICK = Effort(0.01, 0.01, 2, 3, 0.5)
SIZES = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
WORDS = ("suite=kernels", "device=cpu", "weights=random", "batch=[2]", "sequence=[16]", "suite.seconds=0.01",
         "suite.warm_up_s=0.01", "suite.min_samples=2",
         f"model.architecture={{model_type: bert, {SIZES}}}")  # fmt: skip
LAYER = "/encoder/encoder/layer.0"
NCU = sorted((ROOT / "results/reference").glob("*/kernels/*.csv"))

NAMES = [
    # Nsight Compute, TensorRT 8.6 and its plugins
    ("mha11", "", "attention"),
    ("fmha_v2_int8_384_64_ldgsts_sm90_kernel", "", "attention"),
    ("__myl_bb0_115_SliResMulCasSubMulAddMaxSubExpSumDivMul_vec", "", "attention"),
    ("sm90_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize128x256x32_cgasize2x1x1", "", "products"),
    ("sm90_xmma_gemm_i8i8_i8i32_f32_tn_n_tilesize256x128x64_warpgroupsize2x1x1_gelu_erf_beta0", "", "products"),
    ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32", "", "products"),
    ("__myl_bb0_39_AddSqrDivMulCasMulAddResTra", "", "norms and residuals"),
    ("__myl_bb0_69_CasMulCasMulResTraResAddMeaSubMulMeaAddSqrDivMulMulAddMulMinMaxRouCas", "", "norms and residuals"),
    ("void nvinfer1::embLayerNormKernelHFace<__half, 256>(int, const int *)", "", "norms and residuals"),
    ("void nvinfer1::skiplnDQQ<96, 8, 0>(int, const signed char *)", "", "norms and residuals"),
    ("__myl_bb0_36_DivCasErfCasAddMulMul", "", "activation"),
    ("generatedNativePointwise", "", "activation"),
    ("__myl_bb0_74_Mov", "", "reformat"),
    ("__myl_bb0_117_MovResTraResMovTra_vec", "", "reformat"),
    ("void genericReformat::copyVectorizedKernel<double, __half, signed char, 0, 0, 2>(unsigned int)", "", "reformat"),
    ("void CUTENSOR_NAMESPACE::permutationKernelPLC3<CUTENSOR_NAMESPACE::VectorWrite2DTensorView>", "", "reformat"),
    # layers of IProfiler: names that the project gives, and names of TensorRT
    ("0/qkv", "", "products"),
    ("11/down", "", "products"),
    ("0/attention", "", "attention"),
    ("0/attention_norm", "", "norms and residuals"),
    ("0/gelu", "", "activation"),
    ("Reformatting CopyNode for Input Tensor 0 to 0/qkv", "", "reformat"),
    ("{ForeignNode[/encoder/Cast.../encoder/layer.11/output/LayerNorm]}_", "", "other"),
    # ONNX Runtime
    (f"{LAYER}/attention/self/query/MatMul", "MatMul", "products"),
    (f"{LAYER}/attention/self/query/Add", "Add", "products"),
    (f"{LAYER}/attention/output/dense/MatMul", "MatMulIntegerToFloat", "products"),
    (f"{LAYER}/attention/self/MatMul/MatMulScaleFusion/", "FusedMatMul", "attention"),
    (f"{LAYER}/attention/self/MatMul_1", "MatMul", "attention"),
    (f"{LAYER}/attention/self/Softmax", "Softmax", "attention"),
    (f"{LAYER}/attention/self/Transpose_1", "Transpose", "reformat"),
    (f"{LAYER}/attention/self/MatMul_1_output_0_q", "QuantizeLinear", "reformat"),
    (f"{LAYER}/intermediate/intermediate_act_fn/Mul_1_output_0_QuantizeLinear", "QuantizeLinear", "reformat"),
    (f"{LAYER}/output/Add", "Add", "norms and residuals"),
    ("SkipLayerNormalization_token_18", "SkipLayerNormalization", "norms and residuals"),
    (f"{LAYER}/output/LayerNorm/LayerNormalization", "LayerNormalization", "norms and residuals"),
    ("BiasGelu_token_1", "BiasGelu", "activation"),
    ("/encoder/embeddings/word_embeddings/Gather", "Gather", "other"),
    # PyTorch on a CPU
    ("aten::addmm", "aten::linear", "products"),
    ("aten::copy_", "aten::linear", "reformat"),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::scaled_dot_product_attention", "attention"),
    ("aten::bmm", "aten::scaled_dot_product_attention", "attention"),
    ("aten::native_layer_norm", "aten::layer_norm", "norms and residuals"),
    ("aten::add", "aten::add", "norms and residuals"),
    ("aten::gelu", "aten::gelu", "activation"),
    ("aten::as_strided", "aten::transpose", "reformat"),
    ("aten::index_select", "aten::embedding", "other"),
    ("mkldnn::_linear_pointwise", "mkldnn::_linear_pointwise", "products"),
    # PyTorch on a GPU
    ("triton_per_fused_add_native_layer_norm_2", "", "norms and residuals"),
    ("triton_poi_fused_addmm_gelu_view_5", "", "activation"),
    ("triton_poi_fused_clone_1", "", "reformat"),
    ("triton_tem_fused_addmm_3", "", "products"),
    ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_bias_TNT", "", "products"),
    ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128>>", "", "attention"),
    ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half>", "", "norms and residuals"),
    ("void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>>", "",
     "norms and residuals"),
    ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "", "activation"),
    ("Memcpy HtoD (Pinned -> Device)", "", "reformat"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "expected"), NAMES, ids=lambda value: value[-40:])
def test_the_class_of_a_name(name: str, kind: str, expected: str) -> None:
    assert kernel_class(name, kind) == expected


@pytest.mark.parametrize("path", NCU, ids=lambda path: path.stem)
def test_committed_profiles_have_few_other_kernels(path: Path) -> None:
    kernels = ncu_kernels(path.read_text(encoding="utf-8"))
    times = times_by_class(kernels)
    assert tuple(times) == CLASSES
    assert sum(count for _, count in times.values()) == len(kernels)
    total = sum(spent for spent, _ in times.values())
    assert times["other"][0] < 0.02 * total
    assert times["products"][0] > 0.3 * total


def test_the_profile_of_a_step_has_the_median_of_each_kernel() -> None:
    other = KernelTime("b", 5, "Add", 2)
    steps = [ProfiledStep((KernelTime("a", time), other), idle) for time, idle in ((1, 9), (30, 2), (3, 3))]
    assert median_step(steps) == ProfiledStep((KernelTime("a", 3), KernelTime("b", 5, "Add", 2)), 3)
    with pytest.raises(ValueError, match="the profiler reported no step"):
        median_step([])


def test_idle_is_the_time_that_no_stream_uses() -> None:
    assert idle_between([(10, 20), (12, 30), (35, 40), (36, 37)]) == 5
    assert idle_between([]) == 0


def test_a_trace_of_onnx_runtime(tmp_path: Path) -> None:
    def event(name: str, start: int, duration: int, category: str = "Node", **args: str) -> dict[str, object]:
        return {"cat": category, "name": name, "ts": start, "dur": duration, "args": args}

    events = [
        event("session_initialization", 0, 50, "Session"), event("a_kernel_time", 105, 30, op_name="MatMul"),
        event("a_fence_before", 104, 1), event("b_kernel_time", 140, 10, op_name="Add"),
        event("model_run", 100, 60, "Session"), event("model_run", 200, 5, "Session"),
    ]  # fmt: skip
    (tmp_path / "trace.json").write_text(json.dumps(events))
    first, second = read_trace(tmp_path / "trace.json")
    assert first == ProfiledStep((KernelTime("a", 30_000, "MatMul"), KernelTime("b", 10_000, "Add")), 20_000)
    assert second == ProfiledStep((), 5_000)


def test_the_output_of_nsight_systems() -> None:
    text = (
        "Processing [step.sqlite] with [cuda_gpu_trace.py]...\n\nStart (ns),Duration (ns),CorrId,Name\n"
        '1000,200,1,"void f<int, 2>(int)"\n1300,100,2,gemm\n1400,50,3,gemm\n'
    )
    expected = (KernelTime("void f<int, 2>(int)", 200), KernelTime("gemm", 150, "", 2))
    assert nsys_step(text) == ProfiledStep(expected, 100)
    with pytest.raises(ValueError, match="no table with the column Start"):
        nsys_step("error: no report")


@pytest.mark.parametrize(
    "text", ["==ERROR== no permission", '"ID","Kernel Name"\n"0","a"'], ids=["no table", "no metric"]
)
def test_the_output_of_nsight_compute_without_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"no table with the column Kernel Name|no kernel times"):
        ncu_kernels(text)


class Profiled(NullSession):
    """Session with a step of 1 ms and a known profile."""

    def __init__(self) -> None:
        super().__init__("ok", Costs(gpu_ms=1.0))

    def profile(self, steps: int) -> StepProfile:
        return StepProfile("known", ProfiledStep((KernelTime("gemm", 700_000, "", 12), KernelTime("mha", 200_000))))


def arrays() -> dict[str, np.ndarray]:
    ids = np.arange(32, dtype=np.int32).reshape(2, 16)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "reference": null_hidden(ids)}
    return {f"2x16/{name}": array for name, array in {**feeds, "rows": np.arange(2)}.items()}


def test_idle_that_a_profiler_does_not_measure_is_the_rest_of_the_step() -> None:
    measured = measure(measure_run(Profiled, (Shape(2, 16),), arrays(), QUICK), KernelsQuestion("library"))
    result = measured.result
    assert isinstance(result, KernelsResult)
    assert (result.profiler, result.step_ns, result.idle_ns) == ("known", 1_000_000, 100_000)
    assert result.excess == pytest.approx(0.0)
    (check,) = measured.checks
    assert check.cosine == pytest.approx(1.0)


def test_a_backend_without_profiler_is_unsupported() -> None:
    session: Session = NullSession("ok", Costs())
    with pytest.raises(Unsupported, match="this backend has no profiler of kernels; on a GPU use profile=nsys"):
        measure(measure_run(lambda: session, (Shape(2, 16),), arrays(), QUICK), KernelsQuestion("library"))


@pytest.mark.parametrize(("tool", "package"), [("ncu", "nsight-compute"), ("nsys", "nsight-systems")])
def test_a_tool_that_is_not_installed_is_unavailable(
    tool: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=f"^{tool} is not installed or not in PATH: install .*{package}") as refused:
        measure(measure_run(Profiled, (Shape(2, 16),), arrays(), QUICK), KernelsQuestion(tool))
    assert "\n" not in str(refused.value)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put programs with the names of both tools first in PATH; they run the command after their options."""
    for name in TOOLS:
        (tmp_path / name).write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_without_a_profile_is_unavailable(tool: str, tools: Path) -> None:
    commands: list[tuple[str, ...]] = []
    with pytest.raises(Unavailable, match=rf"^{tool} wrote no profile \(.*see the log"):
        TOOLS[tool].profile(lambda prefix: commands.append(tuple(prefix)))
    ((command, *options),) = commands
    assert command == tool
    assert {"--profile-from-start", "--capture-range=cudaProfilerApi"} & set(options)


def test_a_tool_is_refused_on_a_cpu(fast_cli: Cli) -> None:
    done = fast_cli(*WORDS, "backend=torch_eager", "profile=ncu")
    assert (done.returncode, done.stderr) == (
        2, "refused: profile=ncu observes kernels of a GPU; on a CPU use profile=library\n",
    )  # fmt: skip


@pytest.mark.parametrize(("backend", "profiler"), [("torch_eager", "PyTorch"), ("ort", "ONNX Runtime")])
def test_a_run_on_a_cpu(backend: str, profiler: str, fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*WORDS, f"backend={backend}")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "kernels")
    result = record.result
    assert isinstance(result, KernelsResult)
    assert result.profiler == profiler
    times = times_by_class(result.step.kernels)
    assert all(times[name][1] > 0 for name in ("products", "attention", "norms and residuals", "activation"))
    # Two layers with six weight products each.
    assert times["products"][1] >= 12
    assert result.step.idle_ns is not None
    assert result.sum_ns == sum(spent for spent, _ in times.values()) + result.step.idle_ns
    (row,) = rows(kernel_class_tables([record]))
    assert row["sum / step"] == f"{result.sum_ns / result.step_ns:.0%}"


def record_of(make_record: MakeRecord, precision: str, products: int, reformat: int, step: int) -> Record:
    kernels = [{"name": "gemm", "nanoseconds": products, "count": 12}]
    kernels += [{"name": "a", "kind": "QuantizeLinear", "nanoseconds": reformat}] if reformat else []
    scores = {"profiler": "PyTorch", "kernels": kernels, "idle_ns": 100_000, "samples": [step], "steady": True}
    return make_record(suite="kernels", precision=precision, measurements=(), scores=scores)


def test_two_rows_answer_why_int8_is_not_faster(make_record: MakeRecord) -> None:
    full = record_of(make_record, "fp32", 1_000_000, 0, 1_100_000)
    low = record_of(make_record, "int8", 500_000, 600_000, 1_500_000)
    text = kernel_class_tables([full, low])
    changes = "step +0.400 ms (1.10 to 1.50); by class in ms: reformat +0.600, products -0.500"
    assert f"- null int8 against fp32, 2x16: {changes}" in text
    first, second = rows(text)[:2]
    assert (first["precision"], first["products"], first["sum / step"]) == ("fp32", "1.00 (12)", "100%")
    assert (second["reformat"], second["sum / step"]) == ("0.600 (1)", "80%")
    assert "the sum is 20% below the step" in text
    assert "above the step" not in text


def test_the_table_at_the_end_of_a_run_marks_sums_that_are_not_a_step(make_record: MakeRecord, tmp_path: Path) -> None:
    full = record_of(make_record, "fp32", 1_000_000, 0, 1_100_000)
    low = record_of(make_record, "int8", 500_000, 600_000, 1_500_000)
    text = end_text("kernels", [full, low], MachineFolder(tmp_path, "gpu-a"), Style("torch_eager/fp32"))
    sums = [line.split()[-1] for line in text.splitlines() if line.startswith("*  null")]
    assert sums == ["100%", "80%!"]
    assert "!: more than 5% from the step" in " ".join(text.split())


@pytest.mark.parametrize("change", [{"samples": []}, {"kernels": [{"name": "a"}]}, {"profiler": 1}], ids=str)
def test_a_record_without_times_is_bad(make_record: MakeRecord, change: dict[str, object]) -> None:
    data = json_of(record_of(make_record, "fp32", 1, 0, 1))
    data["scores"] |= change
    with pytest.raises(BadRecord, match=r"scores\."):
        Record.from_json({**data, "schema": 1})
