"""What a device can reach: an FMA loop and a copy, to measure other kernels against.

These are the two roofs of the roofline model (Williams, Waterman and Patterson 2009), measured
instead of taken from a data sheet.
"""

from __future__ import annotations

from clinfer_kernels.common import kernel_head
from clinfer_kernels.expr import identity
from clinfer_kernels.families import family_of
from clinfer_kernels.spec import Arg, Kernel, Launch, Target, dense
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.template import fill

_CHAINS = 14  # latency times throughput of multiply-add units, and all fit into registers


def fma_loop(target: Target, rounds: int) -> Kernel:
    """float32 multiplications and additions in registers; output 0 has an element per work-item.

    `rounds` steps of all chains: 28 operations per lane each.
    """
    if target.cls == "gpu":
        lanes, local = 1, min(target.max_work_group, 256)
        items = local * 64 * target.compute_units
    else:
        lanes, local = max(8, target.vector_width), 1
        items = 64 * target.compute_units
    text = fill(
        "fma_loop",
        target,
        head=kernel_head("fma_loop", (local,)),
        chains=_CHAINS,
        vec="float" if lanes == 1 else f"float{lanes}",
        lanes=lanes,
    )
    args = (Arg("out", 0), Arg("scalar", value=rounds))
    launch = Launch("fma_loop", text, args, (items,), (local,))
    return Kernel((launch,), flops=2 * lanes * _CHAINS * rounds * items)


def copy(target: Target, count: int) -> Kernel:
    """Input 0 to output 0, `count` float32 elements each."""
    tensor = dense("float32", (count,))
    spec = PointwiseSpec(identity("float32"), (tensor,), (tensor,))
    family = family_of(spec)
    return family.emit(spec, family.candidates(spec, target)[0], target)
