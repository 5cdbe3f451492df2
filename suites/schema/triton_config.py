"""Keys of suite=tritonserver."""

from __future__ import annotations

from dataclasses import dataclass

from backends.config_key import key
from backends.value_checks import between, positive
from suites.schema.enums import Protocol


@dataclass
class TritonConfig:
    """Keys of suite=tritonserver. Loads and rules of batches are keys of `serving`."""

    python: str = key(
        "", "Python with the package nvidia-pytriton, whose tritonserver is started. Empty: the Python of the backend."
    )
    server: str = key("", "Path of a tritonserver that is started instead.")
    grpc_url: str = key("", "HOST:PORT of a running server for gRPC. No server is started then.")
    http_url: str = key("", "HOST:PORT of a running server for HTTP. No server is started then.")
    model: str = key("", "Name of the model on the running server.")
    protocols: list[Protocol] = key([Protocol.grpc, Protocol.http], "Protocols of the requests.")
    host: str = key("127.0.0.1", "Address that a started server listens on. The default is for this machine only.")
    grpc_port: int = key(0, "Port of a started server for gRPC. 0: any free one.")
    http_port: int = key(0, "Port of a started server for HTTP. 0: any free one.")
    start_s: float = key(120.0, "Most seconds until a started server is ready.")

    def __post_init__(self) -> None:
        positive("tritonserver.start_s", self.start_s)
        for name in ("grpc_port", "http_port"):
            between(f"tritonserver.{name}", getattr(self, name), 0, 65535)
