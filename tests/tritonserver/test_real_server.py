"""A real tritonserver on this machine serves a tiny model; SUITES_TRITON_PYTHON names a Python with nvidia-pytriton.

That Python also needs onnxruntime and tokenizers, and the Python of the tests needs tritonclient[grpc,http].
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest
from conftest import ROOT, Cli, command_lines_with, table_in, wait_until
from markdown_rows import rows
from word_models import WORDS, word_model

from backends.base import Array
from backends.cache import ArtifactCache
from backends.served_model.running_model import RunningModel
from backends.served_model.served_texts import tokenizer_of
from suites import deploy
from suites.cli import local_settings
from suites.measuring.clock import HostClock
from suites.records.results_folder import read_records
from suites.serving.arrivals import OpenLoop
from suites.serving.request_queue import BatchPolicy
from suites.serving.request_texts import RequestTexts
from suites.tritonserver.answers import AnswerCheck
from suites.tritonserver.client import Endpoint, TritonClient
from suites.tritonserver.load_server import RemoteServer, RemoteWorkers
from suites.tritonserver.result import GRPC, HTTP, IN_PROCESS, UNBATCHED, TritonResult
from suites.tritonserver.server_process import (
    ServerFailed,
    TritonServer,
    find_program,
    free_address,
    running_server,
)

PYTHON = os.environ.get("SUITES_TRITON_PYTHON", "")

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="SUITES_TRITON_PYTHON names no Python with nvidia-pytriton"),
    # Libraries of the client are not free of warnings.
    pytest.mark.filterwarnings("ignore"),
]

SMALL = ("device=cpu", "batch=[1,16]", "sequence=[32]", "repeats=1", "suite.seconds=0.2", "suite.warm_up_s=0.1",
         "suite.min_samples=2", "suite.minimum_cosine=0")  # fmt: skip
REQUESTS = 1000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = word_model(tmp_path_factory.mktemp("model") / "tiny")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def repository(checkpoint: Path, shared_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the model `tiny`, which `deploy` wrote."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    results, folder = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("repository") / "models"
    own = [f"model.path={checkpoint}", f"cache={shared_cache.root}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.running.stages.call", in_process.stage)
        patch.setattr(local_settings, "settings_file", lambda: None)
        done = in_process.command_line(["backend=ort", f"results={results}", *own, *SMALL], ROOT, {})
        assert done.returncode == 0, done.stderr
        (record,) = results.glob("*/records/latency/*.json")
        command = [str(record), str(folder), *own, "--name", "tiny", "--max-queue-delay-us", "5000"]
        assert deploy.main(command) == 0
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Run a server with the repository, and check that no process of it is left."""
    program = find_program("", PYTHON, tmp_path_factory.mktemp("links"))
    with running_server(program, repository, free_address("127.0.0.1", 0, 0), 120, lambda text: None) as running:
        assert command_lines_with(str(repository))
        yield running
    wait_until(lambda: command_lines_with(str(repository)) == [])


def texts(count: int) -> list[str]:
    """Return texts of 1 to 20 words."""
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 21))) for _ in range(count)]


def text_input(grpc: Any, text: str) -> Any:
    tensor = grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
    return tensor


def answers_of_session(version: Path, asked: Sequence[str]) -> list[Array | str]:
    """Return the answers of the suite's own session in this process, one text at a time."""
    model = RunningModel.open(version)
    rows = tokenizer_of(version, model.facts)(asked, [])
    return [model.answers([row])[0] for row in rows]


def test_a_thousand_concurrent_texts_are_answered_right_in_batches(server: TritonServer, repository: Path) -> None:
    grpc = importlib.import_module("tritonclient.grpc")
    asked, answers = texts(REQUESTS), dict[int, Any]()
    all_answered = threading.Event()

    def note(number: int, result: Any, error: Any) -> None:
        answers[number] = error or result.as_numpy("embedding")[0]
        if len(answers) == REQUESTS:
            all_answered.set()

    with grpc.InferenceServerClient(f"127.0.0.1:{server.address.grpc}") as client:
        for number, text in enumerate(asked):
            client.async_infer(
                "tiny", [text_input(grpc, text)], lambda result, error, number=number: note(number, result, error)
            )
        assert all_answered.wait(600)
        statistics = client.get_inference_statistics("tiny", as_json=True)["model_stats"][0]
    for number, expected in enumerate(answers_of_session(repository / "tiny" / "1", asked)):
        assert answers[number] == pytest.approx(expected, abs=1e-5), asked[number]
    sizes = [int(batch["batch_size"]) for batch in statistics["batch_stats"]]
    assert max(sizes) > 1
    assert int(statistics["inference_stats"]["success"]["count"]) == REQUESTS


def test_a_request_that_is_too_long_fails_alone(server: TritonServer, repository: Path) -> None:
    grpc = importlib.import_module("tritonclient.grpc")
    asked, answers = ["the cat sat", "the cat " * 40, "a red dog"], dict[int, Any]()
    all_answered = threading.Event()

    def note(number: int, result: Any, error: Any) -> None:
        answers[number] = str(error) if error else result.as_numpy("embedding")[0]
        if len(answers) == len(asked):
            all_answered.set()

    with grpc.InferenceServerClient(f"127.0.0.1:{server.address.grpc}") as client:
        for number, text in enumerate(asked):
            client.async_infer(
                "tiny", [text_input(grpc, text)], lambda result, error, number=number: note(number, result, error)
            )
        assert all_answered.wait(600)
    assert answers[1].endswith("the request has 82 tokens; at most 32 are allowed: shorten it")
    first, _, last = answers_of_session(repository / "tiny" / "1", asked)
    assert answers[0] == pytest.approx(first, abs=1e-5)
    assert answers[2] == pytest.approx(last, abs=1e-5)


def test_several_rows_of_ids_and_texts_over_http(server: TritonServer, repository: Path) -> None:
    http = importlib.import_module("tritonclient.http")
    ids, mask = np.int32([[2, 4, 5, 3], [2, 6, 3, 0]]), np.int32([[1, 1, 1, 1], [1, 1, 1, 0]])
    with http.InferenceServerClient(f"127.0.0.1:{server.address.http}") as client:
        tensors = [http.InferInput(name, [2, 4], "INT32") for name in ("input_ids", "attention_mask")]
        for tensor, array in zip(tensors, (ids, mask), strict=True):
            tensor.set_data_from_numpy(array)
        of_ids = client.infer("tiny", tensors).as_numpy("embedding")
        text = http.InferInput("text", [2, 1], "BYTES")
        text.set_data_from_numpy(np.array([["the cat"], ["sat"]], np.object_))
        of_texts = client.infer("tiny", [text]).as_numpy("embedding")
    expected = np.stack(answers_of_session(repository / "tiny" / "1", ["the cat", "sat"]))
    assert of_ids == pytest.approx(expected, abs=1e-5)
    assert of_texts == pytest.approx(expected, abs=1e-5)


def test_a_running_server_by_its_address(server: TritonServer, checkpoint: Path, fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(
        "suite=tritonserver", "backend=ort", f"model.path={checkpoint}", *SMALL, "lengths=stsb", "serving.loads=[50]",
        f"tritonserver.grpc_url=127.0.0.1:{server.address.grpc}", "tritonserver.model=tiny",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = read_records(tmp_path / "results", "tritonserver")
    assert isinstance(record.result, TritonResult)
    assert [curve.path for curve in record.result.curves] == [IN_PROCESS, GRPC]
    assert record.cell.options["running_server"] is True
    curve = record.result.curve(GRPC)
    assert curve is not None
    assert curve.compared > 0 == curve.wrong


@pytest.mark.parametrize("requests", ["ids", "text"])
def test_curves_of_a_started_server_are_beside_the_one_in_the_process(
    requests: str, checkpoint: Path, cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("tritonclient.http.aio", reason="tritonclient[http] is not installed", exc_type=Exception)
    done = cli(
        "suite=tritonserver", "backend=ort", f"model.path={checkpoint}", *SMALL, "lengths=stsb", "serving.wait_ms=2",
        f"serving.input={requests}",        "serving.loads=[50,200]", f"tritonserver.python={PYTHON}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = read_records(tmp_path / "results", "tritonserver")
    result = record.result
    assert isinstance(result, TritonResult)
    assert result.version
    for path in (IN_PROCESS, GRPC, HTTP, UNBATCHED):
        curve = result.curve(path)
        assert curve is not None, path
        assert all(point.answered == point.sent - point.too_long for point in curve.points), path
        assert curve.wrong == 0
    batched, alone = result.curve(GRPC), result.curve(UNBATCHED)
    assert batched is not None
    assert alone is not None
    assert batched.server[0].mean_batch > 1  # with many clients
    assert alone.server[0].mean_batch == 1
    listed = rows(table_in(tmp_path / "results", "tritonserver").read_text(encoding="utf-8"))
    assert {row["path"] for row in listed} == {"in process", "gRPC", "HTTP", "no batcher"}
    wait_until(lambda: command_lines_with(str(tmp_path)) == [])


def test_a_full_queue_rejects_requests_and_counts_them(fast_cli: Cli, tmp_path: Path) -> None:
    """Each pass takes 20 ms, so of 100 requests at once a few find room in the queue."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    done = fast_cli(
        "suite=tritonserver", "backend=null", "null.step_ms=20", *SMALL, "lengths=stsb", "serving.most_requests=2",
        "serving.queue=4", "serving.arrivals=bursts", "serving.burst=100",
        "serving.loads=[1000]", f"tritonserver.python={PYTHON}", "tritonserver.protocols=[grpc]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = read_records(tmp_path / "results", "tritonserver")
    assert isinstance(record.result, TritonResult)
    curve = record.result.curve(GRPC)
    assert curve is not None
    point = curve.points[1]
    assert point.rejected > 0
    assert point.answered > 0
    assert (point.answered + point.rejected + point.too_long, point.errors) == (point.sent, 0)


def test_a_server_that_dies_under_load_fails_the_cell(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = find_program("", PYTHON, tmp_path / "links")
    request_texts = RequestTexts.of([[2, 4, 3]], 0, ("input_ids",))
    (expected,) = answers_of_session(repository / "tiny" / "1", ["the"])
    assert not isinstance(expected, str)
    answers = AnswerCheck({0: expected}, 0.99)

    def serve() -> None:
        address = free_address("127.0.0.1", 0, 0)
        with running_server(program, repository, address, 120, lambda text: None) as server:
            endpoint = Endpoint(GRPC, f"127.0.0.1:{address.grpc}", "tiny")
            with TritonClient(endpoint, request_texts, 100) as client:
                workers = RemoteWorkers(client, HostClock(), answers, server.check)
                remote = RemoteServer(workers, HostClock(), request_texts, BatchPolicy(queue=1 << 20))
                times = np.arange(5000) * 4_000_000
                killer = threading.Timer(1.0, server.process.kill)
                killer.start()
                remote.serve(OpenLoop(times, np.zeros(5000, np.int64)))

    with pytest.raises(ServerFailed, match="tritonserver ended with status -9"):
        serve()
    assert answers.compared > 0 == answers.wrong
    assert "last lines of tritonserver's log:" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_fails_the_cell_with_the_log(
    checkpoint: Path, fast_cli: Cli, tmp_path: Path
) -> None:
    """torch is not installed in the Python of the server."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    fast_cli(
        "suite=tritonserver", "backend=torch_eager", f"model.path={checkpoint}", *SMALL, "serving.loads=[10]",
        f"tritonserver.python={PYTHON}", "tritonserver.protocols=[grpc]",
    )  # fmt: skip
    (record,) = read_records(tmp_path / "results", "tritonserver")
    assert record.outcome == "failed"
    assert "tritonserver did not start: failed to load 'served" in record.reason
    assert "No module named 'torch'" in record.reason
    assert "last lines of tritonserver's log:" in record.log_tail
