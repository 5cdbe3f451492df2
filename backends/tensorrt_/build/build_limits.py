"""Limits of the process or of the thread in which a builder measures its tactics; see BuildSpec.build_limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from backends.base import BuildSpec, Unsupported
from backends.compute_share import GREEN, MPS
from backends.mps_daemon import limited_process
from backends.tensorrt_.runtime.target import builds_without_gpu
from backends.tensorrt_.runtime.tensorrt_options import Engines, TensorRTOptions

LimitedThread = Callable[[], AbstractContextManager[None]]
"""Gives a context in which the current thread has the limit of a build."""


def check_build_limit(spec: BuildSpec) -> None:
    """
    Raises:
        Unsupported: the options of a build prevent its limit.
    """
    limit, options = spec.build_limit, spec.options_as(TensorRTOptions)
    if limit is None:
        return
    if builds_without_gpu(spec):
        raise Unsupported("a build for trt.target uses no GPU, so it has no limit; leave trt.target out")
    if limit.method == MPS and options.engines is Engines.per_shape:
        raise Unsupported("MPS limits the first build of a process only; use trt.engines=one, or limits.method=green")
    if limit.method == GREEN and options.builder_threads > 1:
        raise Unsupported(
            "a green context is that of one thread; leave trt.builder_threads out, or use limits.method=mps"
        )


def limited_worker(spec: BuildSpec) -> AbstractContextManager[object]:
    """Return a context that limits this process by MPS, if the build is limited so. CUDA must start in it."""
    limit = spec.build_limit
    return limited_process(limit.share) if limit is not None and limit.method == MPS else nullcontext()


def limited_thread(spec: BuildSpec) -> LimitedThread:
    """Return the context for calls of the builder: in it, the green context of the limit is the current context of this
    thread, if the build is limited so.

    Raises:
        Unavailable: the driver or the device has no green contexts.
    """
    limit = spec.build_limit
    if limit is None or limit.method != GREEN:
        return nullcontext
    from backends.green_contexts import divide, made_current

    (part,) = divide(spec.device.index, (limit.share,))
    return partial(made_current, part.context)
