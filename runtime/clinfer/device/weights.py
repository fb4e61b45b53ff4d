"""A plan's constants as buffers of the driver's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clinfer.device.failures import settle
from clinfer.device.instance import bytes_of
from clinfer.device.opencl import cl as opencl
from clinfer.errors import DeviceError
from clinfer.lowering.plan import Absent
from clinfer.mapping import drop_pages

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.lowering.plan import Array, Plan

_UNDER_WAY = 64 * 2**20
"""Bytes that are queued before they are waited for: so much of mapped files is in memory."""


def placed(device: Device, plan: Plan) -> dict[int, Any]:
    """The constants as buffers, by the plan's numbers of buffers.

    Where the device uses host memory in place they are windows on the plan's arrays. Else they are
    copies, done when this returns: the plan's arrays, and the files they lie in, are not needed any
    more. Raises the driver's errors, and `DeviceError` for what is larger than it allows.
    """
    arrays = {
        number: bytes_of(_present(plan.constants[buffer.constant]))
        for number, buffer in enumerate(plan.buffers)
        if buffer.kind == "const"
    }
    _require_room(device, arrays.values())
    return _windows(device, arrays) if device.shares_host_memory else _copies(device, arrays)


def _windows(device: Device, arrays: dict[int, Array]) -> dict[int, Any]:
    cl = opencl()
    use = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
    return {n: cl.Buffer(device.context, use, hostbuf=array) for n, array in arrays.items()}


def _copies(device: Device, arrays: dict[int, Array]) -> dict[int, Any]:
    """Writes into buffers of the device, from where the arrays lie; no driver keeps a copy."""
    cl = opencl()
    made: dict[int, Any] = {}
    queue = device.new_queue()
    under_way: list[Array] = []
    try:
        for number, array in arrays.items():
            made[number] = cl.Buffer(device.context, cl.mem_flags.READ_ONLY, array.nbytes)
            under_way.append(array)
            cl.enqueue_copy(queue, made[number], array, is_blocking=False)
            if sum(a.nbytes for a in under_way) >= _UNDER_WAY:
                _finish(queue, under_way)
        _finish(queue, under_way)
    except BaseException as error:
        settle(queue, (made, under_way, error.__traceback__))
        raise
    return made


def _finish(queue: Any, under_way: list[Array]) -> None:
    queue.finish()
    for array in under_way:
        drop_pages(array)
    under_way.clear()


def _present(constant: Array) -> Array:
    assert not isinstance(constant, Absent), "a plan without its weights cannot be loaded again"
    return constant


def _require_room(device: Device, arrays: Any) -> None:
    largest = max((array.nbytes for array in arrays), default=0)
    if largest > device.info.max_alloc:
        raise DeviceError(
            f"a weight of {largest} bytes is needed, but {device.info.full_name} allows "
            f"{device.info.max_alloc} bytes in one allocation; split it in the model"
        )
