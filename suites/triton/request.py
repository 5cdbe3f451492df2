"""Options of suite=triton: those of suite=serving that Triton has too, and the server."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import cast

from suites.asking.suite_request import RequestContext, SuiteRequest, require_model
from suites.schema.config import RunConfig
from suites.schema.enums import Arrivals
from suites.schema.refusals import Refused
from suites.serving.request import suite_request as serving_request
from suites.serving.suite import ServingQuestion
from suites.triton.suite import TritonQuestion


def suite_request(context: RequestContext) -> SuiteRequest:
    """Add the loads, the rules of batches and the server. All shapes are built.

    Raises:
        Refused: a value does not fit the others, or Triton has no counterpart for it.
    """
    config = context.config
    require_model(config)
    _check(config)
    request = serving_request(context)
    triton, serving = config.triton, cast(ServingQuestion, request.question)
    protocols = tuple(sorted(item.name for item in triton.protocols))
    if triton.grpc_url or triton.http_url:
        protocols = tuple(name for name in protocols if getattr(triton, f"{name}_url"))
    question = TritonQuestion(
        **{item.name: getattr(serving, item.name) for item in fields(serving)},
        python=_path(triton.python),
        server=_path(triton.server),
        grpc_url=triton.grpc_url,
        http_url=triton.http_url,
        model=triton.model,
        host=triton.host,
        grpc_port=triton.grpc_port,
        http_port=triton.http_port,
        protocols=protocols,
        start_s=triton.start_s,
    )
    own: dict[str, object] = {"protocols": list(protocols), **({"running_server": True} if question.runs else {})}
    return replace(request, question=question, options={**request.options, **own})


def _check(config: RunConfig) -> None:
    triton, serving = config.triton, config.serving
    if serving.arrivals not in (Arrivals.poisson, Arrivals.bursts):
        raise Refused(f"suite=triton offers loads; serving.arrivals={serving.arrivals.name} is for suite=serving only")
    if serving.bound_ms:
        raise Refused("serving.bound_ms is for suite=serving only; leave it out with suite=triton")
    if serving.most_tokens:
        raise Refused("Triton's batcher has no limit of tokens; leave serving.most_tokens out with suite=triton")
    if not triton.protocols:
        raise Refused("triton.protocols=[] is empty; give grpc, http or both")
    running = [name for name in ("grpc_url", "http_url") if getattr(triton, name)]
    for name in running:
        host, colon, port = getattr(triton, name).rpartition(":")
        if not (host and colon and port.isdecimal()) or "/" in host:
            raise Refused(f"triton.{name}={getattr(triton, name)} is not HOST:PORT, such as 127.0.0.1:8001")
    if running and not triton.model:
        raise Refused(f"triton.{running[0]} needs triton.model=NAME, the model on that server")
    if running and not {name.removesuffix("_url") for name in running} & {item.name for item in triton.protocols}:
        raise Refused(f"triton.{running[0]} is for a protocol that triton.protocols leaves out; add it")
    for name in ("python", "server", "grpc_port", "http_port"):
        if running and getattr(triton, name):
            raise Refused(f"triton.{name} starts a server, and triton.{running[0]} names a running one; give one only")
    if triton.model and not running:
        raise Refused("triton.model needs triton.grpc_url or triton.http_url, the server that has the model")


def _path(path: str) -> str:
    """Return an absolute path, because workers run in other folders. A virtual environment's Python stays a link."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""
