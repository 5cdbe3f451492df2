"""Green contexts of CUDA: parts of the SMs of a GPU, through the driver API of cuda-python.

A stream of a green context runs its kernels on the SMs of this context only. Memory belongs to the whole device.
"""

from __future__ import annotations

import math
from typing import Any

from cuda.bindings import driver

from backends.base import Unavailable
from backends.compute_share import ComputeShare

NEEDS = "green contexts need an NVIDIA driver and a cuda-python for CUDA 12.4 or newer"


def divide(index: int, count: int, share: float) -> tuple[ComputeShare, ...]:
    """Return `count` green contexts of a device without common SMs, each with `share` of the SMs.

    The device gives SMs in groups, for example of 8. One context gets at least its share. Several get at most their
    share if more does not fit. The contexts stay until the end of the process, because streams of a destroyed context
    are no longer valid.

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
            for group in _groups(whole, total, count, share)
        )
    except (AttributeError, RuntimeError) as error:  # cuda-python raises both for functions that are missing
        raise Unavailable(f"{NEEDS}: {error}") from error


def stream_of(context: object) -> driver.CUstream:
    """Return a new stream of a green context that does not synchronize with the default stream.

    Raises:
        RuntimeError: the driver reported an error.
    """
    return _checked(driver.cuGreenCtxStreamCreate(context, driver.CUstream_flags.CU_STREAM_NON_BLOCKING, 0))


def _groups(whole: driver.CUdevResource, total: int, count: int, share: float) -> list[driver.CUdevResource]:
    """Return `count` groups of SMs. A single group whose size is rounded up to all SMs is the whole resource."""
    needed = min(total // count, math.ceil(round(share * total, 6)))
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
