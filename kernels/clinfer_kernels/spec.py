"""The contract between lowering and the kernel families: plain frozen data.

    spec  = what is computed     (one frozen dataclass per family: PointwiseSpec, MatmulSpec, ...)
    Tile  = how it is cut        (a family's own frozen dataclass of tunables)
    Target = on what device
    emit(spec, tile, target) -> Kernel = OpenCL C text, argument list, launch geometry

Every family module offers `candidates(spec, target)`, the best first and a plain correct one last,
and `emit`. Texts are deterministic and do not contain sizes: sizes, strides and offsets are scalar
arguments, so one program serves every size of the same structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer_kernels.dims import Dim, product

if TYPE_CHECKING:
    import numpy as np


class Target(NamedTuple):
    """A device as the kernels see it: its class and limits, not its brand.

    `vector_width` counts float32 lanes; `local_mem` is bytes; `extensions` holds only those in use.
    """

    cls: str = "cpu"  # "cpu" | "gpu"
    vendor: str = "generic"
    architecture: str = "generic"
    compute_units: int = 4
    vector_width: int = 8
    max_work_group: int = 256
    local_mem: int = 32768
    subgroup_sizes: tuple[int, ...] = ()
    fp16: bool = False
    fp64: bool = True
    int64_atomics: bool = False
    extensions: frozenset[str] = frozenset()
    dialect: str = "pocl"  # compiler family, for quirks: "pocl" | "intel" | "nvidia" | "amd" | ...


class Tensor(NamedTuple):
    """A strided view on a buffer. Shape, strides and offset count elements; stride 0 broadcasts."""

    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        return product(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Row-major without gaps (strides of size-1 dimensions do not matter)."""
        expected = row_major(self.shape)
        pairs = zip(self.shape, self.strides, expected, strict=True)
        return all(n == 1 or s == e for n, s, e in pairs)


def row_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Strides of a dense row-major array of that shape, in elements."""
    strides: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        strides.append(step)
        step = step * dim
    return tuple(reversed(strides))


def dense(dtype: str, shape: Sequence[Dim], offset: Dim = 0) -> Tensor:
    """A row-major tensor."""
    return Tensor(dtype, tuple(shape), row_major(shape), offset)


class Arg(NamedTuple):
    """One kernel argument.

    kind: "in" | "out" | "scratch" (a buffer, by `index` into the spec's tensors or the kernel's
    scratch list), "scalar" (`value`, passed as `ctype`) or "local" (`value` bytes of local memory).
    """

    kind: str
    index: int = 0  # type: ignore[assignment]  # a tuple has a method of that name
    value: Dim = 0
    ctype: str = "int"


class Launch(NamedTuple):
    """One enqueue. `global_size` counts work-items; it is a multiple of `local_size` by itself."""

    entry: str
    source: str
    args: tuple[Arg, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...]
    options: str = ""


class Pack(NamedTuple):
    """A constant input the kernel wants rearranged once, when the model is compiled.

    `key` names the layout: two kernels that want one weight in the same layout share the copy.
    `apply` maps the array (as the model has it) to the packed array, C-contiguous.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of that name
    key: str
    apply: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


class Kernel(NamedTuple):
    """What a family emits: launches in order, scratch buffers in bytes, constants to pack.

    `in_place` lists (output, input): the two may be one buffer. Such an input is read at an index
    only by the work-item that writes the output there, once and afterwards.
    """

    launches: tuple[Launch, ...]
    scratch: tuple[Dim, ...] = ()
    packs: tuple[Pack, ...] = ()
    flops: Dim = 0  # multiplications and additions, for reports
    problem: str = ""  # the digest by which tuning data know what it computes
    in_place: tuple[tuple[int, int], ...] = ()
