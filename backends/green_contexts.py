"""Green contexts of CUDA: parts of the SMs of a GPU, through the driver API of cuda-python.

A stream of a green context runs its kernels on the SMs of this context only. Memory belongs to the whole device.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from cuda.bindings import driver

from backends.base import Unavailable
from backends.compute_share import ComputeShare

NEEDS = "green contexts need an NVIDIA driver and a cuda-python for CUDA 12.4 or newer"


def divide(index: int, shares: Sequence[float]) -> tuple[ComputeShare, ...]:
    """Return green contexts of a device without common SMs, one for each share of the SMs.

    The device gives SMs in groups, for example of 8. One context gets at least its share. Several equal ones get at
    most their share if more does not fit. Of two different ones, the first gets at least its share and the second all
    other SMs. The contexts stay until the end of the process, because streams of a destroyed context are no longer
    valid.

    Raises:
        Unavailable: the driver, cuda-python or the device has no green contexts.
    """
    try:
        _checked(driver.cuInit(0))
        device = _checked(driver.cuDeviceGet(index))
        whole = _checked(driver.cuDeviceGetDevResource(device, driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM))
        total = int(whole.sm.smCount)
        return tuple(
            ComputeShare(int(group.sm.smCount), total, _context(device, group))
            for group in _groups(whole, total, shares)
        )
    except (AttributeError, RuntimeError) as error:  # cuda-python raises both for functions that are missing
        raise Unavailable(f"{NEEDS}: {error}") from error


def stream_of(context: object) -> driver.CUstream:
    """Return a new stream of a green context that does not synchronize with the default stream.

    Raises:
        RuntimeError: the driver reported an error.
    """
    return _checked(driver.cuGreenCtxStreamCreate(context, driver.CUstream_flags.CU_STREAM_NON_BLOCKING, 0))


@contextlib.contextmanager
def made_current(context: object) -> Iterator[None]:
    """Make a green context the current context of this thread, for a library that creates its streams itself.

    Raises:
        Unavailable: the driver cannot do this, or the library made another context current, such as the primary one.
    """
    try:
        handle = _checked(driver.cuCtxFromGreenCtx(context))
        _checked(driver.cuCtxPushCurrent(handle))
    except (AttributeError, RuntimeError) as error:
        raise Unavailable(f"{NEEDS}: {error}") from error
    try:
        yield
    finally:
        left = _checked(driver.cuCtxPopCurrent())
    if int(left) != int(handle):
        raise Unavailable("the library left the green context, so its work had all SMs; use limits.method=mps")


def _groups(whole: driver.CUdevResource, total: int, shares: Sequence[float]) -> list[driver.CUdevResource]:
    """Return a group of SMs for each share. A single group of all SMs is the whole resource."""
    count, needed = len(shares), min(total // len(shares), math.ceil(round(shares[0] * total, 6)))
    if len(set(shares)) > 1:
        return _with_rest(whole, math.ceil(round(shares[0] * total, 6)))
    if count == 1 and needed >= total:
        return [whole]
    for size in (needed,) if count == 1 else range(needed, 0, -1):
        error, groups, created, _ = driver.cuDevSmResourceSplitByCount(count, whole, 0, size)
        if error == driver.CUresult.CUDA_SUCCESS and created >= count:
            return list(groups[:count])
        if error not in (driver.CUresult.CUDA_SUCCESS, driver.CUresult.CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION):
            _checked((error,))
    if count == 1:
        return [whole]
    raise RuntimeError(f"the {total} SMs of this device cannot be divided into {count} groups")


def _with_rest(whole: driver.CUdevResource, size: int) -> list[driver.CUdevResource]:
    """Return a group of at least `size` SMs, and the group of all other SMs."""
    error, groups, _, rest = driver.cuDevSmResourceSplitByCount(1, whole, 0, size)
    if error == driver.CUresult.CUDA_SUCCESS and rest.sm.smCount:
        return [groups[0], rest]
    if error not in (driver.CUresult.CUDA_SUCCESS, driver.CUresult.CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION):
        _checked((error,))
    raise RuntimeError(f"a group of {size} SMs leaves no other SMs of this device")


def _context(device: driver.CUdevice, group: driver.CUdevResource) -> driver.CUgreenCtx:
    description = _checked(driver.cuDevResourceGenerateDesc([group], 1))
    return _checked(
        driver.cuGreenCtxCreate(description, device, driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM)
    )


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a call of the driver API.

    Raises:
        RuntimeError: the driver reported an error; the message names it.
    """
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the driver reported {error.name}")
    return values[0] if values else None
