"""How constant weights are packed: records of numbers, so that a plan can say it without weights.

Each names its layout for `Pack` as `key`; `pack` maps ONNX's weights to the packed array. Nothing
but NumPy is needed to pack: a start whose plan is known imports no kernel family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Matrix = tuple[tuple[float, ...], ...]
Taps = tuple[tuple[tuple[int, int, int], ...], ...]
"""For each phase of a convolution and axis of its window: begin, end and step of the taps taken."""

WINOGRAD: dict[int, Matrix] = {
    2: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
"""G of Winograd's F(n x n, 3 x 3): what brings a window of weights to its points."""


def taps_of(phases: Iterable[Iterable[range]]) -> Taps:
    """The taps of phases as numbers."""
    return tuple(tuple((t.start, t.stop, t.step) for t in phase) for phase in phases)


class MatrixPanels(NamedTuple):
    """A matrix [k, n] as panels of `cols` columns: [ceil(n / cols)][k][cols], zeros beyond n."""

    dtype: str
    cols: int

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"panels-{self.dtype}-{self.cols}"

    def pack(self, array: Array) -> Array:
        """[k, n] as [ceil(n / cols), k, cols] in the panels' dtype."""
        import numpy as np

        k, n = array.shape
        whole = n // self.cols
        packed = np.zeros((-(-n // self.cols), k, self.cols), np.dtype(self.dtype))
        body = array[:, : whole * self.cols]
        packed[:whole] = body.reshape(k, whole, self.cols).swapaxes(0, 1)
        packed[whole:, :, : n - whole * self.cols] = array[None, :, whole * self.cols :]
        return packed


class ConvPanels(NamedTuple):
    """Weights of a convolution: [groups][ceil(M / cols)][taps][C][cols] of each phase, then zeros.

    Filters beyond M are zero; the zeros at the end are as long as a window's innermost axis, and no
    fewer than `least_zeros`.
    """

    dtype: str
    cols: int
    groups: int
    transposed: bool
    phases: Taps
    least_zeros: int = 0

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        kind = "transposed" if self.transposed else "conv"
        name = f"{kind}-panels-{self.dtype}-{self.cols}-{self.groups}-{_name(self.phases)}"
        return f"{name}-{self.least_zeros}" if self.least_zeros else name

    def pack(self, array: Array) -> Array:
        """ONNX weights as one flat array."""
        import numpy as np

        grouped = array.reshape(self.groups, array.shape[0] // self.groups, *array.shape[1:])
        if self.transposed:
            grouped = grouped.swapaxes(1, 2)
        parts = [self._phase(grouped, taps) for taps in self.phases]
        run = max(len(range(*taps[-1])) for taps in self.phases) * grouped.shape[2]
        zeros = np.zeros(max(run, self.least_zeros))
        return np.concatenate([*parts, zeros]).astype(np.dtype(self.dtype), copy=False)

    def _phase(self, grouped: Array, taps: tuple[tuple[int, int, int], ...]) -> Array:
        """[groups, filters, channels, kernel...] as the panels of one phase."""
        import numpy as np

        groups, filters, channels = grouped.shape[:3]
        window = _taken(grouped, taps)
        taken = window.reshape(groups, filters, channels, math.prod(window.shape[3:]))
        each = -(-filters // self.cols)
        packed = np.zeros((groups, each * self.cols, *taken.shape[2:]), np.dtype(self.dtype))
        packed[:, :filters] = taken
        panels = packed.reshape(groups, each, self.cols, *taken.shape[2:])
        return np.ascontiguousarray(panels.transpose(0, 1, 4, 3, 2)).reshape(-1)


class TapRows(NamedTuple):
    """Weights of a depthwise convolution: [taps][channels] of each phase, one after the other."""

    dtype: str
    phases: Taps

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"depthwise-{self.dtype}-{_name(self.phases)}"

    def pack(self, array: Array) -> Array:
        """ONNX weights as one flat array."""
        import numpy as np

        rows = [_taken(array, taps).reshape(array.shape[0], -1).T.ravel() for taps in self.phases]
        return np.concatenate(rows).astype(np.dtype(self.dtype), copy=False)


class WinogradPoints(NamedTuple):
    """Windows of 3 x 3 for tiles of `out` x `out`: G w G' as [panels][points][C][cols], then zeros.

    Filters beyond M are zero; there are as many zeros behind as channels.
    """

    out: int
    cols: int

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"conv-winograd-{self.out}-{self.cols}"

    def pack(self, array: Array) -> Array:
        """ONNX weights as one flat array of float32; sums are of float64."""
        import numpy as np

        filters, channels = array.shape[:2]
        g = np.array(WINOGRAD[self.out])
        points = np.einsum("pi,mcij,qj->pqcm", g, array.astype(np.float64), g, optimize=True)
        panels = -(-filters // self.cols)
        packed = np.zeros((len(g) ** 2, channels, panels * self.cols), np.float32)
        packed[:, :, :filters] = points.reshape(-1, channels, filters)
        panelled = packed.reshape(len(g) ** 2, channels, panels, self.cols).transpose(2, 0, 1, 3)
        return np.concatenate([panelled.ravel(), np.zeros(channels, np.float32)])


class WinogradPanels(NamedTuple):
    """As `WinogradPoints`, a matrix for each point: [points][ceil(M / cols)][C][cols].

    With `phases`, the taps of the window, what `ConvPanels` makes of them lies behind.
    """

    out: int
    cols: int
    phases: Taps

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"conv-winograd-panels-{self.out}-{self.cols}-{_name(self.phases)}"

    def elements(self, filters: int, channels: int) -> int:
        """How many the points take."""
        return (self.out + 2) ** 2 * -(-filters // self.cols) * self.cols * channels

    def pack(self, array: Array) -> Array:
        """ONNX weights as one flat array of float32; sums are of float64."""
        import numpy as np

        filters, channels = array.shape[:2]
        points = WinogradPoints(self.out, self.cols).pack(array)[:-channels]
        panelled = points.reshape(-(-filters // self.cols), (self.out + 2) ** 2, -1)
        turned: Array = panelled.swapaxes(0, 1).ravel()
        if not self.phases:
            return turned
        direct = ConvPanels("float32", self.cols, 1, False, self.phases).pack(array)
        return np.concatenate([turned, direct])


def _taken(array: Array, taps: tuple[tuple[int, int, int], ...]) -> Array:
    """Weights whose last axes are the whole window: the taps that are taken."""
    every = (slice(None),) * (array.ndim - len(taps))
    return array[every + tuple(slice(*axis) for axis in taps)]


def _name(phases: Taps) -> str:
    return ";".join(",".join(":".join(map(str, axis)) for axis in phase) for phase in phases)


PACKINGS = (MatrixPanels, ConvPanels, TapRows, WinogradPoints, WinogradPanels)
"""Those that a plan can name."""
