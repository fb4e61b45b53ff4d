"""The contract between lowering and the kernel families: plain frozen data.

    spec  = what is computed     (one frozen dataclass per family: PointwiseSpec, MatmulSpec, ...)
    Tile  = how it is cut        (a family's own frozen dataclass of tunables)
    Target = on what device
    emit(spec, tile, target) -> Kernel = OpenCL C text, argument list, launch geometry

Every family module offers `candidates(spec, target)`, the best first and a plain correct one last,
and `emit`. Texts are deterministic and do not contain sizes: sizes, strides and offsets are scalar
arguments, so one program serves every size of the same structure. Only what is known when the model
is compiled and gives a text its structure is in it: windows, and the length of short rows
(`row_short`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer_kernels.dims import Dim, product

if TYPE_CHECKING:
    import numpy as np


_FEATURES: dict[str, frozenset[str]] = {
    "pocl": frozenset({"clang vectors", "clang hints", "short grids"}),
    "intel_cpu": frozenset({"clang hints"}),
    "intel": frozenset({"long loops"}),
}
_FEATURES_OF_16_BITS: dict[str, frozenset[str]] = {"intel": frozenset({"norms apart"})}
"""What kernels ask of a compiler family or its runtime, by dialect; a quirk of one is a word here.

clang vectors   `vloadn`, `vstoren` and `convert_` are functions of a library that is not always
                inlined; Clang's vector types, with an element's alignment, take one instruction
clang hints     built-in functions for non-temporal stores and for prefetching
long loops      a loop with a long body stays one, whatever a pragma says
bytes           a unit of a GPU multiplies bytes and adds their products in int32
norms apart     products of many rows are slower where they normalise those as they read them;
                with a matrix unit of 16 bits
short grids     no more than 65535 work-items along a dimension
"""


class Target(NamedTuple):
    """A device as the kernels see it: its class and limits, not its brand.

    `vector_width` counts float32 lanes; `local_mem` is bytes; `extensions` holds only those in use.
    `matrix_units` names the matrix instructions it has: rows of `contraction.matrix_units`.
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
    matrix_units: tuple[str, ...] = ()
    precision: str = "f32"  # of float32 products: "f32", "3xtf32", "bf16x3", "tf32", "f16", "bf16"

    @property
    def features(self) -> frozenset[str]:
        """What its compiler and its runtime have, or lack: words explained at `_FEATURES`."""
        found = _FEATURES.get(self.dialect, frozenset())
        if any("_s8" in unit for unit in self.matrix_units):
            found |= {"bytes"}
        if self.precision in ("f16", "bf16"):
            found |= _FEATURES_OF_16_BITS.get(self.dialect, frozenset())
        return found

    @property
    def group_units(self) -> int:
        """How many units run work-groups: SMs, compute units, Xe cores.

        Intel's driver counts vector engines. Of those with sub-groups of 8 a core has 16 (Arc A:
        512 for 32 cores), of the wider ones 8 (Arc B, Max).
        """
        if self.dialect != "intel":
            return self.compute_units
        engines = 16 if 8 in self.subgroup_sizes or not self.subgroup_sizes else 8
        return max(1, self.compute_units // engines)

    @property
    def units(self) -> tuple[str, ...]:
        """The inner products it has, the fastest first: rows of `contraction.units`."""
        pairs = self.architecture[:5] in ("gfx11", "gfx12")
        return (*self.matrix_units, "fma_pairs" if pairs else "fma")


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
    "status" is the buffer of a run's reports, "slot" the number of the launch's first one
    (`positions`); no more than one of each.
    """

    kind: str
    index: int = 0  # type: ignore[assignment]  # a tuple has a method of that name
    value: Dim = 0
    ctype: str = "int"


MOST_ARGUMENT_BYTES = 1024
"""Of all arguments of a kernel: the least CL_DEVICE_MAX_PARAMETER_SIZE that devices may have."""
_SHORT = frozenset({"int", "uint", "float"})


class Launch(NamedTuple):
    """One enqueue. `global_size` counts work-items; it is a multiple of `local_size` by itself.

    `when` is 1 where it runs, 0 where the sizes of a run ask for other launches of its kernel.
    `flops`: those of its own; where no launch of a kernel says, its last one has all.
    """

    entry: str
    source: str
    args: tuple[Arg, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...]
    options: str = ""
    when: Dim = 1
    flops: Dim = 0

    @property
    def argument_bytes(self) -> int:
        """What its arguments take; addresses are 8 bytes."""
        kinds = (
            "int" if a.kind == "slot" else a.ctype if a.kind == "scalar" else "" for a in self.args
        )
        return sum(4 if kind in _SHORT else 8 for kind in kinds)


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
