"""Client of a Triton server: requests that do not wait for one another, over gRPC or HTTP.

An event loop in a thread of its own sends the requests. It uses the library tritonclient, which is imported when a
client is opened.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TypeVar

import numpy as np

from backends.base import Array, Unavailable
from backends.json_codec import from_json
from suites.measuring.clock import now_ns
from suites.schema.refusals import first_line
from suites.serving.request_texts import RequestTexts
from suites.tritonserver.result import GRPC, ServerTimes

T = TypeVar("T")

REQUEST_S = 120
"""Seconds after which a request without an answer has failed."""

IDS = ("input_ids", "attention_mask", "token_type_ids")

DATA_TYPES = {"TYPE_INT32": "INT32", "TYPE_INT64": "INT64", "TYPE_STRING": "BYTES"}
"""Name of a type in a request, by its name in a configuration."""

Done = Callable[[int, "Array | None", str], None]
"""Called in the thread of the client with the end in ns, the answer, and an error in one line."""


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        protocol: grpc or http.
        url: HOST:PORT.
    """

    protocol: str
    url: str
    model: str


def check_client(protocols: tuple[str, ...]) -> None:
    """
    Raises:
        Unavailable: tritonclient, or its part for a protocol, is not installed in this Python.
    """
    for protocol in protocols:
        try:
            importlib.import_module(f"tritonclient.{protocol}.aio")
        except (ImportError, RuntimeError):  # tritonclient raises RuntimeError for a part that was not installed
            raise Unavailable(
                f"tritonclient with {protocol} is not installed in this Python: pip install "
                f'"tritonclient[{protocol}]", or pip install "inference-suites[triton]"'
            ) from None


@dataclass
class TritonClient:
    """Connection to one model. Use it as a context manager.

    Attributes:
        texts: token ids of the requests.
        most: most requests in flight.
    """

    endpoint: Endpoint
    texts: RequestTexts
    most: int
    version: str = ""
    _inputs: dict[int, list[object]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __enter__(self) -> TritonClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._wait(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def send(self, text: int, done: Done) -> None:
        """Send a request with one text. Return at once."""
        self._loop.call_soon_threadsafe(self._start, text, done)

    def answer(self, text: int) -> tuple[Array | None, str]:
        """Return the answer to one request, or an error in one line."""
        return self._wait(self._infer(text))

    def statistics(self) -> Statistics:
        """Return the counters of the model since the server started."""
        return self._wait(self._read_statistics())

    async def _open(self) -> None:
        self._module: ModuleType = importlib.import_module(f"tritonclient.{self.endpoint.protocol}")
        client = importlib.import_module(f"tritonclient.{self.endpoint.protocol}.aio").InferenceServerClient
        over_grpc = self.endpoint.protocol == GRPC
        self._client = client(self.endpoint.url, **({} if over_grpc else {"conn_limit": self.most}))
        self._json = {"as_json": True} if over_grpc else {}
        config = _object(await self._client.get_model_config(self.endpoint.model, **self._json))
        config = _object(config["config"]) if over_grpc else config
        self.version = str(_object(await self._client.get_server_metadata(**self._json)).get("version", ""))
        listed = [_object(item) for item in _list(config["input"])]
        # A model of this suite has optional inputs; texts alone, or token ids alone, are enough for it.
        first, known = ("text", ("text",)) if len(self.texts.strings) else ("input_ids", IDS)
        types = {str(item["name"]): str(item["data_type"]) for item in listed
                 if item["name"] == first or not item.get("optional")}  # fmt: skip
        if first not in types or not types.keys() <= {*known}:
            raise Unavailable(
                f"the model {self.endpoint.model} has the inputs {', '.join(str(item['name']) for item in listed)}; "
                f"requests of this suite have {', '.join(known)}"
            )
        self._types = types
        self._output = str(_object(_list(config["output"])[0])["name"])
        self._requested = [self._module.InferRequestedOutput(self._output)]

    def _start(self, text: int, done: Done) -> None:
        task = self._loop.create_task(self._serve(text, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, text: int, done: Done) -> None:
        answer, error = await self._infer(text)
        done(now_ns(), answer, error)

    async def _infer(self, text: int) -> tuple[Array | None, str]:
        """Return the answer [features] or [tokens, features] to one request, or an error in one line."""
        limit = {"client_timeout": REQUEST_S} if self.endpoint.protocol == GRPC else {}  # HTTP has a limit of its own
        try:
            inputs = self._arrays(text)
            result = await self._client.infer(self.endpoint.model, inputs, outputs=self._requested, **limit)
            return np.asarray(result.as_numpy(self._output))[0], ""
        except Exception as error:  # tritonclient raises its own errors and those of two network libraries
            return None, first_line(error)

    def _arrays(self, text: int) -> list[object]:
        """Return the inputs of a request. They are made once for each text."""
        if text not in self._inputs:
            tensors = []
            for name, array in self._values(text).items():
                tensor = self._module.InferInput(name, list(array.shape), DATA_TYPES[self._types[name]])
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            self._inputs[text] = tensors
        return self._inputs[text]

    def _values(self, text: int) -> dict[str, Array]:
        """Return the inputs of a request as arrays [1, values]."""
        if "text" in self._types:
            return {"text": np.asarray([[str(self.texts.strings[text]).encode()]], np.object_)}
        (ids,) = self.texts.rows([text])
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return {name: values[name].astype(DATA_TYPES[kind].lower()) for name, kind in self._types.items()}

    async def _read_statistics(self) -> Statistics:
        answer = _object(await self._client.get_inference_statistics(self.endpoint.model, **self._json))
        return Statistics.read(_object(_list(answer["model_stats"])[0]))

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        async def close() -> None:
            for task in self._tasks:
                task.cancel()
            if (client := getattr(self, "_client", None)) is not None:
                await client.close()

        self._wait(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Statistics:
    """Counters of a model.

    Attributes:
        times: number of requests and their ns, by part: queue, compute_input, compute_infer, compute_output.
        batches: number of batches by their number of requests.
    """

    times: Mapping[str, tuple[int, int]]
    batches: Mapping[str, int]

    @classmethod
    def read(cls, model: Mapping[str, object]) -> Statistics:
        """Return the counters in the JSON of one model. gRPC's JSON has numbers as text, and leaves zeros out."""
        parts = {name: _object(value) for name, value in _object(model["inference_stats"]).items()}
        times = {name: (_whole(part.get("count")), _whole(part.get("ns"))) for name, part in parts.items()}
        listed = [_object(item) for item in _list(model.get("batch_stats", []))]
        batches = {str(item["batch_size"]): _whole(_object(item["compute_infer"]).get("count")) for item in listed}
        return cls(times, batches)

    def since(self, before: Statistics) -> ServerTimes:
        """Return the statistics of the requests after `before`."""
        mean, answered = dict[str, float](), 0
        for name in ("queue", "compute_input", "compute_infer", "compute_output"):
            (count, ns), (count_before, ns_before) = (item.times.get(name, (0, 0)) for item in (self, before))
            answered = count - count_before
            mean[name] = (ns - ns_before) / answered if answered else 0.0
        batches = {size: count - before.batches.get(size, 0) for size, count in self.batches.items()}
        ordered = dict(sorted(batches.items(), key=lambda item: int(item[0])))
        return ServerTimes(
            answered,
            {size: count for size, count in ordered.items() if count},
            mean["queue"],
            mean["compute_input"],
            mean["compute_infer"],
            mean["compute_output"],
        )


def _object(value: object) -> dict[str, object]:
    return dict(from_json(Mapping[str, object], value, "answer"))


def _list(value: object) -> list[object]:
    return list(from_json(tuple[object, ...], value, "answer"))


def _whole(value: object) -> int:
    return int(str(value or 0))
