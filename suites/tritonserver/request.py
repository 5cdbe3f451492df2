"""Options of suite=tritonserver: those of suite=serving that Triton has too, and the server."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import cast

from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.schema.config import RunConfig
from suites.schema.enums import Arrivals, PadTo, Pool
from suites.schema.refusals import Refused
from suites.serving.request import suite_request as serving_request
from suites.serving.suite import ServingQuestion
from suites.tritonserver.suite import TritonQuestion


def suite_request(context: RequestContext) -> SuiteRequest:
    """Add the loads, the rules of batches and the server. All shapes are built.

    Raises:
        Refused: a value does not fit the others, or Triton has no counterpart for it.
    """
    config = context.config
    _check(config)
    request = serving_request(context)
    chosen, serving = config.tritonserver, cast(ServingQuestion, request.question)
    protocols = tuple(sorted(item.name for item in chosen.protocols))
    if chosen.grpc_url or chosen.http_url:
        protocols = tuple(name for name in protocols if getattr(chosen, f"{name}_url"))
    question = TritonQuestion(
        **{item.name: getattr(serving, item.name) for item in fields(serving)},
        python=_path(chosen.python),
        server=_path(chosen.server),
        grpc_url=chosen.grpc_url,
        http_url=chosen.http_url,
        served_model=chosen.model,
        host=chosen.host,
        grpc_port=chosen.grpc_port,
        http_port=chosen.http_port,
        protocols=protocols,
        start_s=chosen.start_s,
    )
    own: dict[str, object] = {"protocols": list(protocols), **({"running_server": True} if question.runs else {})}
    return replace(request, question=question, options={**request.options, **own})


def _check(config: RunConfig) -> None:
    chosen, serving = config.tritonserver, config.serving
    if serving.arrivals not in (Arrivals.poisson, Arrivals.bursts):
        raise Refused(
            f"suite=tritonserver offers loads; serving.arrivals={serving.arrivals.name} is for suite=serving only"
        )
    if serving.bound_ms:
        raise Refused("serving.bound_ms is for suite=serving only; leave it out with suite=tritonserver")
    if serving.most_tokens:
        raise Refused("Triton's batcher has no limit of tokens; leave serving.most_tokens out with suite=tritonserver")
    if serving.pool is Pool.processes:
        raise Refused("serving.pool=processes is for suite=serving only; leave it out with suite=tritonserver")
    if serving.group_by_length:
        raise Refused("Triton's batcher does not group by length; leave serving.group_by_length out")
    if serving.graph and serving.pad_to is not PadTo.built:
        raise Refused("with suite=tritonserver, serving.graph=true needs serving.pad_to=built: batches of a few shapes")
    if not chosen.protocols:
        raise Refused("tritonserver.protocols=[] is empty; give grpc, http or both")
    running = [name for name in ("grpc_url", "http_url") if getattr(chosen, name)]
    for name in running:
        host, colon, port = getattr(chosen, name).rpartition(":")
        if not (host and colon and port.isdecimal()) or "/" in host:
            raise Refused(f"tritonserver.{name}={getattr(chosen, name)} is not HOST:PORT, such as 127.0.0.1:8001")
    if running and not chosen.model:
        raise Refused(f"tritonserver.{running[0]} needs tritonserver.model=NAME, the model on that server")
    if running and not {name.removesuffix("_url") for name in running} & {item.name for item in chosen.protocols}:
        raise Refused(f"tritonserver.{running[0]} is for a protocol that tritonserver.protocols leaves out; add it")
    for name in ("python", "server", "grpc_port", "http_port"):
        if running and getattr(chosen, name):
            raise Refused(
                f"tritonserver.{name} starts a server, and tritonserver.{running[0]} names a running one; give one only"
            )
    if chosen.model and not running:
        raise Refused(
            "tritonserver.model needs tritonserver.grpc_url or tritonserver.http_url, the server that has the model"
        )


def _path(path: str) -> str:
    """Return an absolute path, because workers run in other folders. A virtual environment's Python stays a link."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""
