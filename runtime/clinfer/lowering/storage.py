"""Where values are: storage, and views of it with strides.

Views cost nothing: transposes, slices, expansions and most reshapes only change the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.boundary import Signal
from clinfer.dtypes import DEVICE_DTYPES
from clinfer.graph.ir import Array, Shape, Value
from clinfer.lowering.content import Content
from clinfer_kernels.broadcasts import repeated
from clinfer_kernels.dims import Dim, substitute, symbols
from clinfer_kernels.spec import Tensor, dense, row_major


class Unlowerable(Signal):
    """Raised by an operator's lowering: no kernel fits. The host step reports the reason."""


@dataclass(eq=False)
class Storage:
    """A buffer in the making; `kind` as in `plan.Buffer`. `size` counts elements.

    A packed constant has the element type and the size of what it is made of.
    """

    kind: str
    dtype: str
    size: Dim
    data: Content | None = None
    content: tuple[Dim, ...] = ()


@dataclass(frozen=True)
class View:
    """A strided window on a storage."""

    storage: Storage
    tensor: Tensor

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def is_fixed_constant(self) -> bool:
        """Whether its elements are known: a constant's, of a shape that no run changes."""
        return self.storage.kind == "const" and not any(map(symbols, self.tensor.shape))

    def broadcast(self, shape: Sequence[Dim]) -> View:
        """This view read as `shape`, by NumPy's rules: size-1 and missing dimensions repeat.

        A dimension that turns out to be 1 in a run has stride 0 then.
        """
        missing = len(shape) - self.tensor.rank
        strides: list[Dim] = [0] * missing
        for own, step, wanted in zip(
            self.tensor.shape, self.tensor.strides, shape[missing:], strict=True
        ):
            strides.append(repeated(step, own, wanted))
        return View(self.storage, self.tensor._replace(shape=tuple(shape), strides=tuple(strides)))

    def permute(self, perm: Sequence[int]) -> View:
        """Dimension i of the result is dimension perm[i] of this view."""
        shape = tuple(self.tensor.shape[p] for p in perm)
        strides = tuple(self.tensor.strides[p] for p in perm)
        return View(self.storage, self.tensor._replace(shape=shape, strides=strides))

    def reshape(self, shape: Sequence[Dim]) -> View | None:
        """The same elements as `shape` without moving them; None where that needs a copy."""
        strides = _reshape_strides(self.tensor, tuple(shape))
        if strides is None:
            return None
        return View(self.storage, self.tensor._replace(shape=tuple(shape), strides=strides))

    def named_as(self, before: Shape | None, now: Shape | None) -> View:
        """The view with sizes under other symbols, those of one and the same shape told twice."""
        pairs = [] if before is None or now is None else zip(before, now, strict=True)
        names = {str(old): new for old, new in pairs if old != new}
        if not names:
            return self
        shape, strides = (
            tuple(substitute(dim, names) for dim in dims)
            for dims in (self.tensor.shape, self.tensor.strides)
        )
        return View(self.storage, self.tensor._replace(shape=shape, strides=strides))

    def array(self) -> Array:
        """A constant's elements as this view shows them."""
        assert self.storage.data is not None
        source = self.storage.data.source
        shape = tuple(int(d) for d in self.tensor.shape)  # type: ignore[arg-type]
        if self.tensor.is_contiguous and self.tensor.offset == 0 and shape == source.shape:
            return source
        flat = source.reshape(-1)
        steps = tuple(int(s) * flat.itemsize for s in self.tensor.strides)  # type: ignore[arg-type]
        start = flat[int(self.tensor.offset) :]  # type: ignore[arg-type]
        return np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False)


def device_dtype(value: Value) -> str:
    """The value's dtype, where a kernel can hold it; `Unlowerable` otherwise."""
    if value.dtype not in DEVICE_DTYPES:
        raise Unlowerable(
            f"'{value.name}' has dtype {value.dtype}, which kernels do not compute with"
        )
    if value.shape is None:
        raise Unlowerable(f"the rank of '{value.name}' is not known")
    return value.dtype


def broadcasts(view: View) -> bool:
    pairs = zip(view.tensor.shape, view.tensor.strides, strict=True)
    return any(step == 0 and size != 1 for size, step in pairs)


def movable(view: View) -> View:
    """The view as elements that every device can move: bits of float64 as int64."""
    if view.dtype != "float64":
        return view
    return View(view.storage, view.tensor._replace(dtype="int64"))


def as_matrix(view: View) -> View:
    """The last two dimensions of a view whose leading ones only repeat it."""
    tensor = view.tensor
    return View(view.storage, tensor._replace(shape=tensor.shape[-2:], strides=tensor.strides[-2:]))


def sizes_view(value: Value) -> View:
    assert value.symbolic is not None
    content = tuple(value.symbolic.reshape(-1).tolist())
    shape = value.symbolic.shape
    storage = Storage("sizes", value.dtype or "int64", len(content), content=content)
    return View(storage, dense(storage.dtype, shape))


def shape_text(shape: Sequence[Dim]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _reshape_strides(tensor: Tensor, shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides of `shape` over the same memory, None where there are none (NumPy's rule).

    Both shapes are cut into groups of equal products; within a group the old dimensions must be
    mergeable: stride[i] == size[i + 1] * stride[i + 1].
    """
    if tensor.is_contiguous:
        return row_major(shape)
    old = [(n, s) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n != 1]
    result: dict[int, Dim] = {}
    new = [i for i, n in enumerate(shape) if n != 1]
    i = j = 0
    while i < len(old) and j < len(new):
        start_i, start_j = i, j
        left, right = old[i][0], shape[new[j]]
        i += 1
        j += 1
        while left != right:
            if i < len(old) and (j >= len(new) or _grows(left, right)):
                left = left * old[i][0]
                i += 1
            elif j < len(new):
                right = right * shape[new[j]]
                j += 1
            else:
                return None
        for k in range(start_i, i - 1):
            if old[k][1] != old[k + 1][0] * old[k + 1][1]:
                return None
        step = old[i - 1][1]
        for k in reversed(range(start_j, j)):
            result[new[k]] = step
            step = step * shape[new[k]]
    if i < len(old) or j < len(new):
        return None
    return tuple(result.get(k, 0) for k in range(len(shape)))


def _grows(left: Dim, right: Dim) -> bool:
    """Whether the left product should take the next dimension to catch up with the right one."""
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    if isinstance(left, int) != isinstance(right, int):
        return isinstance(left, int)
    return len(str(left)) < len(str(right))
