"""Options of suite=serving: arrivals, offered loads, rules of batches, and the latency bound."""

from __future__ import annotations

from backends.description import SourceKind
from backends.options import Layout
from backends.registry import describe
from suites.asking.resolve_options import backend_options
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.records.cell import short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Arrivals, PadTo, Pool, RequestInput
from suites.schema.refusals import Refused
from suites.schema.serving_config import ServingConfig
from suites.serving.arrivals import MOST_ARRIVALS
from suites.serving.batch_policy import BatchPolicy
from suites.serving.suite import Bound, ServingQuestion
from suites.serving.trace_file import read_arrivals


def suite_request(context: RequestContext) -> SuiteRequest:
    """Add the loads and the rules of batches. All shapes are built.

    Raises:
        Refused: a value does not fit the shapes or the other values, or the trace cannot be read.
    """
    config, serving = context.config, context.config.serving
    policy = _policy(context)
    arrivals = serving.arrivals.name
    trace = read_arrivals(serving.trace) if serving.arrivals is Arrivals.trace else ()
    if serving.trace and not trace:
        raise Refused("serving.trace needs serving.arrivals=trace; add it, or leave serving.trace out")
    _check_loads(config, policy)
    bounds = tuple(Bound(ms, serving.percentile, serving.steps) for ms in sorted(set(serving.bound_ms)))
    rated = serving.arrivals in (Arrivals.poisson, Arrivals.bursts)
    if bounds and not rated:
        raise Refused(
            f"serving.bound_ms searches a load, and serving.arrivals={arrivals} has none; use poisson or bursts"
        )
    closed, bursts = serving.arrivals is Arrivals.closed, serving.arrivals is Arrivals.bursts
    question = ServingQuestion(
        arrivals=arrivals,
        policy=policy,
        loads=tuple(sorted(serving.loads)),
        clients=tuple(sorted(set(serving.clients))) if closed else (),
        burst=serving.burst if bursts else 1,
        trace=trace,
        bounds=bounds,
        seed=config.seed,
        workers=serving.workers,
        shares=tuple(sorted(serving.shares)) if rated else (),
        graph=serving.graph,
        pool=serving.pool.name,
    )
    return SuiteRequest(context.shapes, context.shapes, question, options=_options(config, question))


def _options(config: RunConfig, question: ServingQuestion) -> dict[str, object]:
    """Return the options of the cell. Those that were added later are missing at their defaults."""
    serving, policy, bounds = config.serving, question.policy, question.bounds
    rated = serving.arrivals in (Arrivals.poisson, Arrivals.bursts)
    own_shares = rated and not serving.loads and list(question.shares) != sorted(ServingConfig().shares)
    return {
        "arrivals": question.arrivals,
        "most_requests": policy.most_requests,
        "most_tokens": policy.most_tokens,
        "wait_ms": serving.wait_ms,
        "queue": policy.queue,
        "workers": question.workers,
        "padded_to": serving.pad_to.name,
        **({"loads": list(question.loads)} if question.loads else {}),
        **({"clients": list(question.clients)} if question.clients else {}),
        **({"burst": serving.burst} if serving.arrivals is Arrivals.bursts else {}),
        **({"trace": short_digest([list(line) for line in question.trace])} if question.trace else {}),
        **({"bound": [*(bound.ms for bound in bounds), serving.percentile]} if bounds else {}),
        **({"shares": list(question.shares)} if own_shares else {}),
        **({"graph": True} if question.graph else {}),
        **({"group_by_length": True} if policy.grouped else {}),
        **({"input": serving.input.name} if policy.tokenizes else {}),
        **({"pool": question.pool} if question.workers > 1 and serving.pool is not Pool.threads else {}),
    }


def _policy(context: RequestContext) -> BatchPolicy:
    serving, largest = context.config.serving, max(shape.batch for shape in context.shapes)
    most = serving.most_requests or largest
    if most > largest:
        raise Refused(f"serving.most_requests={most} is more than the largest batch, {largest}; give batch=[1,{most}]")
    if serving.queue < (fewest := (serving.workers + 1) * most):
        raise Refused(
            f"serving.queue={serving.queue} is too small to fill the batches of {most} of all workers; "
            f"use at least {fewest}"
        )
    if serving.group_by_length and most == 1:
        raise Refused("serving.group_by_length=true has no effect on batches of one request; leave it out")
    if serving.input is RequestInput.text and describe(context.config.backend).source is SourceKind.none:
        raise Refused(f"backend={context.config.backend} has no tokenizer for serving.input=text; leave it out")
    packed = _packs(context.config)
    return BatchPolicy(
        most_requests=most,
        most_tokens=serving.most_tokens,
        wait_ns=round(serving.wait_ms * 1e6),
        queue=serving.queue,
        longest=max(shape.sequence for shape in context.shapes),
        pads_to_built=serving.pad_to is PadTo.built,
        packed=packed,
        multiple=context.config.pad_to_multiple_of if packed else 1,
        grouped=serving.group_by_length,
        tokenizes=serving.input is RequestInput.text,
    )


def _packs(config: RunConfig) -> bool:
    """Return whether sessions of the cell remove padding."""
    has_layout = hasattr(backend_options(config), "layout")
    return describe(config.backend).packs_tokens and not (has_layout and config.layout is Layout.fixed)


def _check_loads(config: RunConfig, policy: BatchPolicy) -> None:
    serving = config.serving
    if serving.graph and not config.cuda_graph:
        raise Refused("serving.graph=true and cuda_graph=false exclude one another; leave one out")
    if serving.loads and serving.arrivals in (Arrivals.closed, Arrivals.trace):
        raise Refused(f"serving.loads has no effect with serving.arrivals={serving.arrivals.name}; leave it out")
    if serving.arrivals is Arrivals.closed:
        if not serving.clients:
            raise Refused("serving.clients=[] is empty; give at least one value, e.g. serving.clients=[1,16]")
        if max(serving.clients) > policy.queue:
            raise Refused(
                f"serving.clients={max(serving.clients)} is more than serving.queue={policy.queue}, so clients would "
                "be rejected without end; raise serving.queue"
            )
    most = max(serving.loads, default=0) * config.suite.seconds
    if most > MOST_ARRIVALS:
        raise Refused(
            f"serving.loads={max(serving.loads):g} for suite.seconds={config.suite.seconds:g} has {most:,.0f} requests;"
            f" at most {MOST_ARRIVALS:,} are allowed: lower one of them"
        )
