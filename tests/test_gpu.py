"""GPU tests: times of the suite compared with a plain loop of PyTorch events, and properties of sessions."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from backends.base import BuildSpec, Feeds, Session, Shape, Source
from backends.cache import ArtifactCache
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend
from backends.torch_.description import EagerOptions, PackedMode, PackedOptions
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.machine import gpus
from suites.measuring.request_clock import time_on_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible"),
    pytest.mark.filterwarnings("ignore"),  # torch.compile and the profiler warn about torch's own functions
]
SHAPE = Shape(128, 128)
"""Large enough that the GPU, and not the launching host, limits the speed of eager steps."""
EFFORT = Effort(warm_up_s=2, seconds=1, min_samples=50, max_samples=1000, tolerance=0.01)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Feeds]:
    from backends.cache import ArtifactCache
    from backends.model.checkpoint import find_checkpoint
    from backends.model.reference import ModelReference

    cache = tmp_path_factory.mktemp("cache")
    architecture = {"model_type": "bert", "num_hidden_layers": 12}
    checkpoint = find_checkpoint(ModelReference("random", architecture=architecture), ArtifactCache(cache))
    backend = load_backend("torch_eager")
    spec = BuildSpec("fp16", gpus()[0].device, (SHAPE,), cuda_graph=True, cache=Path(cache), options=EagerOptions())
    session = backend.open(spec, backend.build(spec, Source(checkpoint.folder, checkpoint.weights_sha256)))
    ids = np.random.default_rng(0).integers(1000, 20000, (SHAPE.batch, SHAPE.sequence), dtype=np.int32)
    ones = np.ones_like(ids)
    return session, {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0}


@pytest.mark.parametrize("graph", [False, True])
def test_gpu_time_agrees_with_a_plain_event_loop(opened: tuple[Session, Feeds], graph: bool) -> None:
    import torch

    session, feeds = opened
    session.load(feeds)
    clock.warm_up(session, EFFORT)
    if graph:
        session.capture()

    assert session.stream is not None
    stream = torch.cuda.ExternalStream(int(session.stream.handle))  # type: ignore[attr-defined]

    def plain_loop() -> float:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(200)]
        for before, after in pairs:
            before.record(stream)
            session.step()
            after.record(stream)
        torch.cuda.synchronize()
        return statistics.median(before.elapsed_time(after) for before, after in pairs) * 1e6

    suite_times, loop_times = [], []
    for _ in range(5):
        suite_times.append(statistics.median(clock.time_device(session, EFFORT).values))
        loop_times.append(plain_loop())
    assert statistics.median(suite_times) == pytest.approx(statistics.median(loop_times), rel=0.02)


def test_replaying_the_graph_gives_the_plain_output(opened: tuple[Session, Feeds]) -> None:
    session, feeds = opened
    session.load({name: array[:8, :64].copy() for name, array in feeds.items()})
    session.step()
    plain = session.fetch().copy()
    session.capture()
    session.step()
    assert np.abs(session.fetch() - plain).max() < 0.02  # FP16; under capture cuBLAS may choose other kernels


def test_an_occupied_device_is_busy_for_about_the_requested_time(opened: tuple[Session, Feeds]) -> None:
    session, _ = opened
    stream = session.stream
    assert stream is not None
    stream.occupy(1)
    stream.synchronize()
    before, after = stream.event(), stream.event()
    before.record()
    stream.occupy(20_000_000)
    after.record()
    assert not after.reached()
    stream.synchronize()
    assert after.reached()
    assert 10_000_000 < after.nanoseconds_since(before) < 40_000_000


def test_the_first_step_on_a_busy_device_takes_no_longer_than_the_second(opened: tuple[Session, Feeds]) -> None:
    """At 1 x 32 an eager step takes much more time on the host than on the device. The result must not include it."""
    session, feeds = opened
    small, other = ({name: array[:1, :size].copy() for name, array in feeds.items()} for size in (32, 64))
    for batch in (small, other) * 3:
        session.load(batch)
        session.step()
        session.wait()
    results = [time_on_device(session, other, small, 40_000_000) for _ in range(10)]
    times = [result for result in results if result is not None]
    assert len(times) > 5
    first, second = (statistics.median(steps[index] for steps in times) for index in (0, 1))
    assert first == pytest.approx(second, rel=0.2)
    assert second < 2_000_000


def random_bert(cache: Path, layers: int) -> tuple[Path, str]:
    from backends.model.checkpoint import find_checkpoint
    from backends.model.reference import ModelReference

    architecture = {"model_type": "bert", "num_hidden_layers": layers}
    checkpoint = find_checkpoint(ModelReference("random", architecture=architecture), ArtifactCache(cache))
    return checkpoint.folder, checkpoint.identity


def outputs_of(name: str, precision: str, cache: Path, feeds: Feeds, **options: object) -> list[np.ndarray]:
    """Return the outputs of a backend on `feeds`: of a step without a CUDA graph, and of one with it."""
    quantization = QuantizationOptions(samples=8, sequence=64)
    (folder, identity), backend, typed = random_bert(cache, 2), load_backend(name), describe(name).options(**options)
    shape = Shape(*feeds["input_ids"].shape)
    spec = BuildSpec(precision, gpus()[0].device, (shape,), True, cache, typed, quantization)
    backend.check(spec)
    form, store = backend.source_form(spec), ArtifactCache(cache)
    source = Source(folder, identity)
    if form.linear_ranges or form.arrays:
        source = prepare_source(folder, identity, form, quantization, [], 0, store)
    with backend.open(spec, backend.build(spec, source)) as session:
        session.load(feeds)
        session.step()
        plain = session.fetch().astype(np.float32)
        session.capture()
        session.step()
        return [plain, session.fetch().astype(np.float32)]


def token_feeds(padded: bool) -> Feeds:
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 20000, (6, 80), dtype=np.int32)
    lengths = generator.integers(10, 80, 6) if padded else np.full(6, 80)
    mask = (np.arange(80) < lengths[:, None]).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("name", "precision", "least", "options"),
    [
        ("torch_compile", "fp8", 0.998, {}),
        ("torch_packed", "fp8", 0.998, {}),
        ("torch_packed", "fp8", 0.998, {"packed_mode": PackedMode.eager}),
        ("torch_packed", "fp16", 0.9999, {"packed_mode": PackedMode.default}),
    ],
)
def test_outputs_of_compiled_and_fp8_models_are_close_to_fp32(
    name: str, precision: str, least: float, options: dict[str, object], padded: bool, tmp_path: Path
) -> None:
    feeds = token_feeds(padded)
    real = feeds["attention_mask"].astype(bool)
    expected = outputs_of("torch_eager", "fp32", tmp_path, feeds)[0][real]
    for output in outputs_of(name, precision, tmp_path, feeds, **options):
        cosine = (
            (output[real] * expected).sum(-1)
            / np.linalg.norm(output[real], axis=-1)
            / np.linalg.norm(expected, axis=-1)
        )
        assert least < cosine.min() <= 1 + 1e-6


def test_an_fp8_model_on_packed_tokens_runs_seven_kernels_in_a_layer(tmp_path: Path) -> None:
    """Four products, attention, and two norms; GELU and all roundings are in their epilogues."""
    from torch.profiler import ProfilerActivity, profile

    counts = []
    for layers in (2, 4):
        folder, identity = random_bert(tmp_path, layers)
        backend, quantization = load_backend("torch_packed"), QuantizationOptions(samples=8, sequence=64)
        spec = BuildSpec("fp8", gpus()[0].device, (Shape(6, 80),), True, tmp_path, PackedOptions(), quantization)
        form = backend.source_form(spec)
        source = prepare_source(folder, identity, form, quantization, [], 0, ArtifactCache(tmp_path))
        with backend.open(spec, backend.build(spec, source)) as session:
            session.load(token_feeds(False))
            session.step()
            session.wait()
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                session.step()
                session.wait()
        counts.append(sum(event.device_type.name == "CUDA" for event in profiled.events()))
    assert counts[1] - counts[0] == 2 * 7


def test_an_fp8_model_on_packed_tokens_is_not_compiled_for_each_number_of_tokens(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    (folder, identity), backend = random_bert(tmp_path, 2), load_backend("torch_packed")
    quantization = QuantizationOptions(samples=8, sequence=64)
    spec = BuildSpec("fp8", gpus()[0].device, (Shape(6, 80),), True, tmp_path, PackedOptions(), quantization)
    source = prepare_source(folder, identity, backend.source_form(spec), quantization, [], 0, ArtifactCache(tmp_path))
    counters.clear()
    with backend.open(spec, backend.build(spec, source)) as session:
        for rows in range(2, 7):
            for length in (20, 33, 80):
                session.load({name: array[:rows, :length].copy() for name, array in token_feeds(False).items()})
                session.step()
                session.wait()
        assert 1 <= counters["stats"]["unique_graphs"] <= 3


def test_kernels_of_fp8_agree_with_pytorch() -> None:
    import torch
    from torch.nn import functional

    from backends.torch_ import fp8_kernels
    from backends.torch_.fp8_linear import Fp8Linear
    from backends.torch_.fp8_products import linear_gelu
    from backends.torch_.packed_encoder import attend

    generator, device = torch.Generator().manual_seed(0), "cuda"

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    def check(found: torch.Tensor, expected: torch.Tensor, inverse: torch.Tensor) -> None:
        """Compare E4M3 with the values before the rounding: half a step of a number is at most 1/16 of it."""
        torch.testing.assert_close(found.float() / inverse, expected.float(), rtol=1 / 15, atol=0.01 / inverse.item())

    for rows, inputs, outputs in ((130, 384, 1536), (1024, 768, 3072), (7, 96, 48)):
        up, inverse = (
            Fp8Linear(random(outputs, inputs).cpu() / 20, random(outputs).cpu(), 5.0, "up").to(device),
            random(1),
        )
        inverse = inverse[0].abs() + 30
        x = up.rounded(random(rows, inputs).half())
        check(linear_gelu(x, up, inverse), functional.gelu(up.product(x).float()), inverse)
        hidden, residual, gamma, beta = (
            random(rows, inputs).half(),
            random(rows, inputs).half(),
            random(inputs),
            random(inputs),
        )
        normed = functional.layer_norm((hidden + residual).float(), gamma.shape, gamma, beta, 1e-12)
        out, rounded = fp8_kernels.add_norm(hidden, residual, [gamma.half(), beta.half()], inverse, 1e-12)
        torch.testing.assert_close(out.float(), normed, rtol=4e-3, atol=4e-3)
        check(rounded, out, inverse)
    for d in (16, 32, 64, 128):
        qkv, starts = random(300, 3, 2, d).half(), torch.tensor([0, 5, 140, 300], dtype=torch.int32, device=device)
        inverse = torch.tensor(100.0, device=device)
        expected = attend(*qkv.unbind(1), starts, 160).flatten(1)
        check(fp8_kernels.attention(qkv, starts, 160, inverse), expected, inverse)


@pytest.mark.parametrize("rows", [1, 130, 700, 2999, 9000])
@pytest.mark.parametrize("major", [8, 9])
def test_every_tile_of_a_product_agrees_with_pytorch(rows: int, major: int) -> None:
    import torch
    from torch.nn import functional

    from backends.torch_.fp8_linear import Fp8Linear
    from backends.torch_.fp8_products import run_product, tile_for

    torch.manual_seed(0)
    for inputs, outputs in ((384, 1536), (768, 768), (96, 48)):
        layer = Fp8Linear(torch.randn(outputs, inputs) / 20, torch.randn(outputs), 5.0, "up").to("cuda")
        inverse, x = torch.tensor(40.0, device="cuda"), layer.rounded(torch.randn(rows, inputs, device="cuda").half())
        product, scales = layer.product(x), [layer.input_scale, layer.weight_scale, inverse]
        expected, tile = functional.gelu(product.float()), tile_for(rows, outputs, major)
        rounded, plain = torch.empty_like(expected, dtype=x.dtype), torch.empty_like(product)
        for out in (rounded, plain):
            run_product(x, (layer.weight, layer.bias), scales, out, tile)
        torch.testing.assert_close(rounded.float() / inverse, expected, rtol=1 / 15, atol=0.01 / inverse.item())
        torch.testing.assert_close(plain, product, rtol=2e-3, atol=2e-3)
