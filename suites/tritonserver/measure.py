"""Measurement for suite=tritonserver: the same loads for the session in this process and for a Triton server.

Runs in the measuring worker. The session is measured first and closed; then the server opens its own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from backends.base import Session, opened_session
from backends.served_model.served_facts import ServedFacts
from backends.served_model.served_texts import TOKENIZER
from suites.deploying.model_config import Batching, preferred_sizes
from suites.deploying.python_model import python_config, write_python_model
from suites.measuring.clock import HostClock, now_ns
from suites.measuring.measure_run import MeasureRun
from suites.records.facts import Facts
from suites.running.job import Measured
from suites.serving.load_verdict import ServerRules, Verdict, verdict
from suites.serving.measure import ServingMeasurement, check_batch
from suites.serving.preparation import Preparation
from suites.serving.request_texts import RequestTexts
from suites.serving.result import OFFERED, SATURATED, LoadPoint
from suites.serving.serving_loop import Server
from suites.serving.worker_pool import WorkerPool
from suites.serving.workers import BatchRunner, OwnThread, Runner, Workers
from suites.suite import Question
from suites.tritonserver.answers import LEAST_COSINE, AnswerCheck, session_answers
from suites.tritonserver.client import Endpoint, TritonClient, check_client
from suites.tritonserver.load_server import RemoteServer, RemoteWorkers
from suites.tritonserver.result import IN_PROCESS, UNBATCHED, Curve, ServerTimes, TritonResult
from suites.tritonserver.server_process import Program, find_program, free_address, running_server, url_host
from suites.tritonserver.suite import TritonQuestion

MODEL, ALONE = "served", "served_unbatched"
"""Names of the models in the repository: with the dynamic batcher, and without it."""


@dataclass(frozen=True)
class Serving:
    """A server that is ready.

    Attributes:
        endpoints: of the model, one for each protocol.
        unbatched: of the same model without the dynamic batcher; None if there is none.
        alive: raises an error if the server has ended.
        ready_s: seconds until it was ready; None if it ran already.
    """

    endpoints: tuple[Endpoint, ...]
    unbatched: Endpoint | None
    alive: Callable[[], None]
    ready_s: float | None


@dataclass
class TritonMeasurement:
    """Measures all paths of a question."""

    run: MeasureRun
    question: TritonQuestion
    texts: RequestTexts
    curves: list[Curve] = field(default_factory=list)
    version: str = ""

    @property
    def clients(self) -> int:
        """Clients that keep all batches complete, although each of their requests crosses a network."""
        policy = self.question.policy
        return min((self.question.workers + 2) * policy.most_requests, policy.queue)

    def in_process(self, workers: Workers) -> Sequence[float]:
        """Measure the session, and return the offered loads for all paths in requests per second."""
        server = Server(workers, HostClock(), self.texts, self.question.policy)
        measurement = self._warm(server)
        capacity = measurement.closed(self.clients, self.run.effort.seconds, SATURATED).achieved
        loads = self.question.loads or [share * capacity for share in self.question.shares if capacity]
        for rate in loads:
            measurement.open(rate, OFFERED)
        self.curves.append(Curve(IN_PROCESS, tuple(measurement.points)))
        return loads

    def remote(self, path: str, endpoint: Endpoint, loads: Sequence[float], serving: Serving) -> Curve:
        """Measure a path through the server. Without own loads, the curve ends at the first load that is too high."""
        assert self.run.spec is not None
        policy = replace(self.question.policy, most_requests=1, wait_ns=0, queue=1 << 30)
        answers = AnswerCheck(self._expected, LEAST_COSINE[self.run.spec.precision])
        with TritonClient(endpoint, self.texts, 2 * self.question.policy.queue + self.clients) as client:
            self.version = client.version
            workers = RemoteWorkers(client, HostClock(), answers, serving.alive)
            measurement = self._warm(RemoteServer(workers, HostClock(), self.texts, policy))
            statistics: list[ServerTimes] = []
            rules = ServerRules(self.question.workers, self.question.burst, self.question.policy.wait_ns / 1e6)

            def measured(work: Callable[[], LoadPoint]) -> LoadPoint:
                before = client.statistics()
                point = work()
                serving.alive()
                statistics.append(client.statistics().since(before))
                return point

            measured(lambda: measurement.closed(self.clients, self.run.effort.seconds, SATURATED))
            for rate in loads:
                point = measured(lambda rate=rate: measurement.open(rate, OFFERED))  # type: ignore[misc]
                if not self.question.loads and verdict(point, rules) is Verdict.too_high:
                    break
        points = tuple(replace(point, batches=times.batches)
                       for point, times in zip(measurement.points, statistics, strict=True))  # fmt: skip
        return Curve(path, points, tuple(statistics), answers.compared, answers.wrong, answers.least_cosine)

    def prepare(self, session: Session) -> None:
        """Compute the answers with which those of the server are compared."""
        self.run.progress("computing the expected answers")
        assert self.run.spec is not None
        policy, per_token = self.question.policy, self.run.spec.output.per_token
        built = self.run.shapes if policy.pads_to_built else ()
        self._expected = session_answers(session, self.texts, policy.longest, built, per_token)

    def _warm(self, server: Server) -> ServingMeasurement:
        measurement = ServingMeasurement(server, self.question, self.run.effort, self.run.progress)
        for clients in (1, self.clients):
            measurement.closed(clients, self.run.effort.warm_up_s / 2, SATURATED)
        measurement.points.clear()
        measurement.service.clear()
        return measurement


def measure(run: MeasureRun, question: Question) -> Measured:
    """Compare a batch with FP32, then measure all paths.

    Args:
        run: its arrays are in the format of suites/serving/inputs.py.
        question: a TritonQuestion.

    Returns:
        The result is a TritonResult. Wrong answers, and a path without any answer, are named in `failures`.

    Raises:
        Unavailable: tritonserver or its client is not installed.
        ServerFailed: the server did not start, or it ended.
    """
    question, steps = cast(TritonQuestion, question), dict[str, int]()
    texts, clock, policy = RequestTexts.read(run.arrays), HostClock(), question.policy
    built = run.shapes if policy.pads_to_built else ()
    measurement = TritonMeasurement(run, question, texts)

    def runner(session: Session) -> BatchRunner:
        run.progress("preparing batches")
        Preparation(texts, policy, built, question.graph, run.effort.warm_up_s).prepare(session, clock)
        return BatchRunner(session, clock, texts, policy, built)

    @contextlib.contextmanager
    def opened(number: int) -> Iterator[Runner]:
        with opened_session(run.opening()) as session:
            yield runner(session)

    check_client(question.protocols)
    with tempfile.TemporaryDirectory(prefix="triton-") as name:
        folder = Path(name)
        program = None if question.runs else find_program(question.server, question.python, folder)
        with run.session(steps) as session:
            checks = [check_batch(session, run, graph) for graph in ((False, True) if question.graph else (False,))]
            measurement.prepare(session)
            if question.workers == 1:
                loads = measurement.in_process(OwnThread(runner(session)))
        if question.workers > 1:
            with WorkerPool(question.workers, opened) as pool:
                loads = measurement.in_process(pool)
        with _serving(measurement, program, folder) as serving:
            for endpoint in serving.endpoints:
                measurement.curves.append(measurement.remote(endpoint.protocol, endpoint, loads, serving))
            if serving.unbatched:
                measurement.curves.append(measurement.remote(UNBATCHED, serving.unbatched, (), serving))
    result = TritonResult(tuple(measurement.curves), measurement.version, serving.ready_s)
    return Measured(checks=tuple(checks), facts=Facts().opened(steps), failures=_failures(result), result=result)


def _failures(result: TritonResult) -> dict[str, str]:
    failures = {}
    for curve in result.curves:
        first = next((point.first_error for point in curve.points if point.first_error), "")
        if curve.wrong:
            failures[curve.path] = f"{curve.wrong:,} of {curve.compared:,} answers differ from those of the session"
        elif not any(point.answered for point in curve.points):
            failures[curve.path] = first or "no request was answered"
    return failures


@contextlib.contextmanager
def _serving(measurement: TritonMeasurement, program: Program | None, folder: Path) -> Iterator[Serving]:
    """Give the running server, or start one with the model of the measurement."""
    question, run = measurement.question, measurement.run
    if program is None:
        urls = {"grpc": question.grpc_url, "http": question.http_url}
        yield Serving(_endpoints(question, urls, question.served_model), None, lambda: None, None)
        return
    address = free_address(question.host, question.grpc_port, question.http_port)
    repository = folder / "repository"
    names = [MODEL, *([ALONE] if question.policy.most_requests > 1 else [])]
    for name in names:
        _write_model(repository / name, measurement)
    host, start = url_host(address.host), now_ns()
    urls = {"grpc": f"{host}:{address.grpc}", "http": f"{host}:{address.http}"}
    with running_server(program, repository, address, question.start_s, run.progress) as server:
        ready_s = (now_ns() - start) / 1e9
        unbatched = _endpoints(question, urls, ALONE)[0] if ALONE in names else None
        yield Serving(_endpoints(question, urls, MODEL), unbatched, server.check, ready_s)


def _endpoints(question: TritonQuestion, urls: dict[str, str], model: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(protocol, urls[protocol], model) for protocol in question.protocols)


def _write_model(folder: Path, measurement: TritonMeasurement) -> None:
    """Write the model with the rules of batches of the question. Its files stay in the cache."""
    run, policy, texts = measurement.run, measurement.question.policy, measurement.texts
    assert run.spec is not None
    assert run.artifact is not None
    spec = replace(run.spec, cuda_graph=measurement.question.graph)  # as the session in the process
    tokenizes = bool(len(texts.strings))
    facts = ServedFacts(run.backend, spec, run.artifact, texts.names, texts.pad, policy.pads_to_built, tokenizes)
    unbatched = folder.name == ALONE
    sizes = preferred_sizes(
        [shape for shape in run.shapes if shape.batch <= policy.most_requests], policy.pads_to_built
    )
    batching = None if unbatched or policy.most_requests == 1 else Batching(policy.wait_ns // 1000, sizes, policy.queue)
    config = python_config(folder.name, facts, batching, measurement.question.workers)
    config = replace(config, largest=1 if unbatched else policy.most_requests)
    version = write_python_model(folder, config, facts, copies=False)
    if tokenizes:
        (version / TOKENIZER).write_bytes(texts.tokenizer.tobytes())
