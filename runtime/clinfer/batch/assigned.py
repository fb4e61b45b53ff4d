"""The device and the cores that a scheduler has given to this process."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""What hides GPUs from NVIDIA's and AMD's OpenCL drivers, too."""


class Assigned(NamedTuple):
    """GPUs by their numbers on the machine, and cores (0: no word of them)."""

    gpus: tuple[str, ...] = ()
    cores: int = 0


def assigned() -> Assigned:
    """What Ray or Dask has assigned to the task or actor that asks; nothing outside of them."""
    for name, ask in (("ray", _by_ray), ("distributed", _by_dask)):
        module = sys.modules.get(name)  # who runs under it has imported it
        found = None if module is None else ask(module)
        if found is not None:
            return found
    return Assigned()


def device_name(gpus: tuple[str, ...], count: int) -> str:
    """The name of the first assigned GPU among the `count` that clinfer sees; CPU where none is.

    Where the scheduler hides the others from the driver (CUDA_VISIBLE_DEVICES), the first that is
    seen is the first assigned; where the driver sees all, the machine's number is its name.
    """
    if not gpus or not count:
        return "CPU"
    hidden = any(os.environ.get(name) == ",".join(gpus) for name in _VISIBLE)
    number = 0 if hidden or count <= len(gpus) or not gpus[0].isdigit() else int(gpus[0])
    return f"GPU.{min(number, count - 1)}"


def _by_ray(ray: Any) -> Assigned | None:
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_task_id() is None and context.get_actor_id() is None:
        return None  # the driver of the job: no scheduler has placed it
    resources = context.get_assigned_resources()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return Assigned(tuple(map(str, gpus)), max(int(resources.get("CPU", 0)), 1))


def _by_dask(distributed: Any) -> Assigned | None:
    try:
        worker = distributed.get_worker()
    except (ValueError, AttributeError):  # no worker's thread
        return None
    wanted = worker.state.total_resources.get("GPU", 0)
    visible = next((os.environ[n] for n in _VISIBLE if os.environ.get(n)), "")
    gpus = visible.split(",") if visible else ["0"] if wanted else []
    return Assigned(tuple(gpus), worker.state.nthreads)
