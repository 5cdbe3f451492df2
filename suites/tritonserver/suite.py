"""How much latency does a Triton Inference Server add under load, and how much load does its batcher add?"""

from __future__ import annotations

from dataclasses import dataclass

from suites.serving.suite import ServingQuestion
from suites.suite import SuiteDescription
from suites.tritonserver.result import RESULT


@dataclass(frozen=True)
class TritonQuestion(ServingQuestion):
    """Loads, rules of batches, and the server.

    Attributes:
        python: Python with nvidia-pytriton; empty for that of the backend.
        server: path of a tritonserver; empty for that of nvidia-pytriton.
        grpc_url, http_url: HOST:PORT of a running server; empty to start one.
        served_model: name of the model on the running server.
        host: address that a started server listens on.
        grpc_port, http_port: its ports; 0 for free ones.
        protocols: names of protocols, grpc and http.
        start_s: most seconds until a started server is ready.
    """

    python: str = ""
    server: str = ""
    grpc_url: str = ""
    http_url: str = ""
    served_model: str = ""
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    protocols: tuple[str, ...] = ("grpc", "http")
    start_s: float = 120.0

    @property
    def runs(self) -> bool:
        """Whether the server runs already."""
        return bool(self.grpc_url or self.http_url)


SUITE = SuiteDescription(
    timed=True, question=TritonQuestion, result=RESULT, settings={"seconds": 5.0, "tolerance": 0.05}
)
