"""How a convolution's kernel reads single elements of its input."""

from __future__ import annotations

from clinfer_kernels import memory
from clinfer_kernels.conv_problem import Problem
from clinfer_kernels.conv_prologue import prepared
from clinfer_kernels.nest import stride_kind
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor


def declare_input(signature: Signature, x: Tensor) -> None:
    """The parameters x_o and, unless the text knows it, x_c: the stride of the channels."""
    signature.scalar("x_o", x.offset)
    if stride_kind(x.strides[-1]) == "s":
        signature.scalar("x_c", x.strides[-1])


def channel_step(x: Tensor) -> str:
    """The stride of the channels as C: '0', '1' or the parameter."""
    kind = stride_kind(x.strides[-1])
    return "x_c" if kind == "s" else kind


def load_input(
    problem: Problem, pixel: str, channel: str, absolute: str = ""
) -> tuple[list[str], str]:
    """Statements and value: the input at an element's index and a channel, prepared for the sums.

    `absolute`: the channel as the prologue counts them, where `pixel` is that of a group.
    """
    x = problem.x
    step = channel_step(x)
    place = {"0": pixel, "1": f"{pixel} + {channel}"}.get(step, f"{pixel} + {channel} * {step}")
    value = memory.load(x.dtype, "x", place)
    return prepared(problem.prologue, x, value, absolute or channel, problem.acc)
