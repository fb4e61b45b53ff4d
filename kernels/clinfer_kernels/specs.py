"""What can be computed: one frozen dataclass per kernel family.

Inputs are `Tensor` views, so transposes, slices and broadcasts need no copy where the family reads
strides. An `epilogue` is applied to each result in registers before it is stored: its operand 0 is
the result, the others are `operands`, views broadcast (stride 0) to the output's shape. A
`prologue` is applied to the input elements as they are read; its operands are views of the input's
shape.

The order of a launch's buffers: "in" indexes `spec.ins`, "out" indexes `spec.outs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import Expr, identity
from clinfer_kernels.guard import check_spec
from clinfer_kernels.spec import Tensor

IDENTITY = identity("float32")


class Spec:
    """What every spec is. A field of text lists its words: nothing else enters a kernel's text."""

    def __post_init__(self) -> None:
        check_spec(self)


@dataclass(frozen=True)
class PointwiseSpec(Spec):
    """outs[j][i] = expr(ins[0][i], ins[1][i], ...)[j]; all views have one shape, any strides."""

    expr: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class IotaSpec(Spec):
    """outs[0][i] = start + i * step along `axis`; ins = (start, step) scalars (0-d tensors)."""

    axis: int
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class RandomSpec(Spec):
    """outs[0][i] = number i * ins[1][0] + ins[1][1], float32, by Philox 4x32-10.

    ins: the key, uint32 [2], and scale and shift, float32 [2]. Numbers are uniform in [0, 1) or
    normal with mean 0 and deviation 1; i counts the elements of outs[0], which is contiguous.
    """

    kind: Literal["uniform", "normal"]
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ReduceSpec(Spec):
    """Reduces `prologue(ins[:n])` over `axes`, then applies `epilogue(result, ins[n:])`.

    ins[:n] have the input's full shape; ins[n:] and outs[0] have that shape with `axes` set to 1
    (keepdims form; lowering drops the dimensions as a view). n = len(prologue.inputs).
    argmax / argmin: out is int64, `select_last` as in ONNX.
    """

    op: Literal[
        "sum",
        "mean",
        "max",
        "min",
        "prod",
        "sum_square",
        "l1",
        "l2",
        "log_sum",
        "log_sum_exp",
        "argmax",
        "argmin",
        "any",
        "all",
    ]
    axes: tuple[int, ...]
    prologue: Expr
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    select_last: bool = False


@dataclass(frozen=True)
class SoftmaxSpec(Spec):
    """Softmax (or its logarithm) of `prologue(ins[:n])` over the last `axes` dimensions.

    epilogue operand 0 is the softmax, the rest ins[n:]; all views have the input's shape.
    """

    log: bool
    axes: int
    prologue: Expr
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class NormSpec(Spec):
    """(x - mean) / sqrt(var + eps) over the last `axes` dims (rms: x / sqrt(mean(x^2) + eps)).

    x = prologue(ins[:n]); epilogue operand 0 is the normalised value (scale and bias are epilogue
    operands, broadcast views), the rest ins[n:]. Statistics are taken in float32 (float64 for
    float64), two-pass.
    """

    rms: bool
    axes: int
    eps: float
    prologue: Expr
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class MatmulSpec(Spec):
    """outs[0] = epilogue(ins[0] @ ins[1], ins[2:]).

    ins[0]: [batch..., M, K], ins[1]: [batch..., K, N], outs[0]: [batch..., M, N], equal ranks >= 2,
    batch dimensions already broadcast (stride 0). Any strides: transposed operands come as views.
    `constant_b`: ins[1] is a constant with stride-0 batch, to be packed when compiled (`Pack` gets
    the array as the view describes it without the batch dimensions: shape [K, N]).
    Integer dtypes accumulate in the dtype of the epilogue's operand 0; of 8 bits that is int32.
    """

    constant_b: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


Form = Literal[
    "integer",
    "fp4",
    "nf4",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float4_e2m1fn",
]
"""What a code of a constant matrix stands for."""


@dataclass(frozen=True)
class EncodedMatmulSpec(Spec):
    """outs[0] = epilogue(ins[0] @ b, ins[2:][:operands]) with a matrix b of floats in few bits.

    b[k, n] = (number(ins[1][k, n]) - zero[k // block, n]) * scale[k // block, n], all constants.
    Behind the epilogue's operands come scales (float32 or float16) and, where `zero` is None, zero
    points of any dtype; else `zero` is that of every block. ins[1] has a code in a byte each, of
    which `bits` (2, 4 or 8) say something. `form` is "integer" (int8 or uint8), a float of
    `narrow.FORMATS` or a table of `narrow.TABLES`. K is a multiple of `block`, and that of
    the codes that are read at once: a byte on CPUs; on GPUs 32 bits, where there are several
    blocks. ins[0] is float32, on GPUs float16 and bfloat16 too. Views as in `MatmulSpec`.
    `quantised`: ins[0] may be quantised to bytes, a block of a row at a time.
    """

    block: int
    bits: int
    quantised: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    form: Form = "integer"
    zero: int | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """Where codes, scales and perhaps zero points are in `ins`."""
        count = 1 + len(self.epilogue.inputs)
        return (1, *range(count, len(self.ins)))


LARGEST_HEAD = 512
"""Of heads, the most elements of which one pass over the keys keeps a query's results at hand."""


@dataclass(frozen=True)
class AttentionSpec(Spec):
    """outs[0] = softmax(ins[0] @ ins[1]^T * scale + mask) @ ins[2].

    ins: q [B, H, Sq, D], k [B, Hkv, Sk, D], v [B, Hkv, Sk, Dv], and with `has_mask` an additive
    mask view broadcast to [B, H, Sq, Sk] (bool: True keeps; False adds -inf). outs[0]:
    [B, H, Sq, Dv], any strides. H is a multiple of Hkv (query head h uses key head
    h // (H / Hkv)).
    `causal`: key j is seen by query i when j <= i + (Sk - Sq).
    A query that sees no key gives NaN, as the softmax of a row of -inf does. `zeroed`: such rows
    are 0 instead ("empty"), or all rows whose weights are NaN ("nan").
    """

    scale: float
    causal: bool
    has_mask: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    zeroed: Literal["", "empty", "nan"] = ""


@dataclass(frozen=True)
class ConvSpec(Spec):
    """Convolution, channels last. outs[0] = epilogue(conv(ins[0], ins[1]), ins[2:]).

    ins[0]: [N, spatial..., C]; ins[1]: weights [M, C / groups, kernel...] as ONNX has them;
    outs[0]: [N, out spatial..., M]. 1, 2 or 3 spatial dimensions.
    `pads`: begins then ends, as ONNX (negative not allowed). `constant_w`: ins[1] is a constant and
    may be packed (`Pack` gets the ONNX-layout array); otherwise it is read as it is.
    `transposed`: the gradient form (ConvTranspose); weights [C, M / groups, kernel...]; the output
    size is outs[0]'s.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    constant_w: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    transposed: bool = False

    @property
    def count(self) -> int:
        """Inputs: x, the weights and the epilogue's operands; those of a prologue are behind."""
        return 1 + len(self.epilogue.inputs)


@dataclass(frozen=True)
class PreparedConvSpec(ConvSpec):
    """A convolution of prologue(ins[0], ins[count:]), which padding does not go through.

    The prologue's operands are views of the input's shape, of stride 0 except along the channels.
    """

    prologue: Expr = IDENTITY


@dataclass(frozen=True)
class ProjectedConvSpec(ConvSpec):
    """A convolution of ins[0] and a projection of ins[count], added; for class "gpu".

    ins[1]: constant weights [M, taps * C + D, 1, ...], those of the window as (tap, channel), then
    those of the projection; ins[count]: [N, out spatial..., D]. One group, not transposed.
    """


@dataclass(frozen=True)
class PoolSpec(Spec):
    """Pooling, channels last.

    ins[0]: [N, spatial..., C]; outs[0]: [N, out spatial..., C]; outs[1], if present (max): int64
    flat indices of the maxima as ONNX counts them in the NC-spatial layout (`column_major` as
    storage_order). `count_include_pad` for averages: 1 counts padding, 2 also what a window has
    beyond it. `p` for lp. epilogue as in ConvSpec.
    `order`: in which elements of a window are added, each sum rounded once.
    """

    kind: Literal["max", "average", "lp"]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    count_include_pad: int
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    p: int = 2
    column_major: bool = False
    order: Literal["any", "rows", "columns"] = "any"


@dataclass(frozen=True)
class ResizeSpec(Spec):
    """Interpolates along every axis where input and output sizes differ (`axes`), any layout.

    coordinates / rounding / cubic_a / exclude_outside /
    extrapolation as in ONNX's Resize. `scales`: the factor per axis of `axes`, as floats where
    known when compiled; None takes it from the sizes (out / in).
    """

    mode: Literal["nearest", "linear", "cubic"]
    coordinates: Literal[
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ]
    rounding: Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
    axes: tuple[int, ...]
    scales: tuple[float | None, ...]
    cubic_a: float
    exclude_outside: bool
    extrapolation: float
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class GridSampleSpec(Spec):
    """outs[0][n, p...] = epilogue(ins[0][n] at the place ins[1][n, p...], ins[2:]), channels last.

    ins: x [N, sizes..., C], the grid [N, outs..., d] with a component for each of the d sizes, the
    last size's first, then the epilogue's operands; outs[0]: [N, outs..., C]. Any strides. The
    rest as in ONNX's GridSample; `aligned`: -1 and 1 are the centres of the outermost elements.
    Where there is output, x has elements.
    """

    mode: Literal["nearest", "linear", "cubic"]
    padding: Literal["zeros", "border", "reflection"]
    aligned: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class GatherSpec(Spec):
    """kind 'axis': outs[0][pre, idx..., post] = ins[0][pre, ins[1][idx...], post] along `axis`.

    kind 'elements': GatherElements. kind 'nd': GatherND with `batch_dims`. Indices are int32 or
    int64; `positions` is the rule for them (`clinfer_kernels.positions`). For those outside an
    element that is there is read; where the axis has none, nothing is written.
    """

    kind: Literal["axis", "elements", "nd"]
    axis: int
    batch_dims: int
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    positions: Literal["wrapped", "natural", "clamped"] = "wrapped"


@dataclass(frozen=True)
class ScatterSpec(Spec):
    """ins = (data, indices, updates); outs[0] starts as data.

    Runs without atomics: the launch over updates is ordered so that duplicates give the sequential
    result. `positions` is the rule for indices; updates for those outside are left out.
    """

    kind: Literal["elements", "nd"]
    axis: int
    reduction: Literal["none", "add", "mul", "max", "min"]
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    positions: Literal["wrapped", "natural", "clamped"] = "wrapped"


@dataclass(frozen=True)
class PadSpec(Spec):
    """`begins` per axis (may be negative: cropping).

    constant: ins[1], if present, is the 0-d value; else zero.
    """

    mode: Literal["constant", "reflect", "edge", "wrap"]
    begins: tuple[Dim, ...]
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ScanSpec(Spec):
    """Cumulative `op` along `axis`; exclusive and reverse as in ONNX's CumSum."""

    op: Literal["sum", "prod"]
    axis: int
    exclusive: bool
    reverse: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class TopKSpec(Spec):
    """The k = outs[0].shape[axis] largest (or smallest) along `axis`, sorted.

    outs[1]: their int64 indices.
    """

    axis: int
    largest: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class SuppressSpec(Spec):
    """Non-maximum suppression of each batch and class.

    ins: boxes [N, B, 4] (corners, or with `centred` centre and size), scores [N, C, B] in
    descending order, the int64 boxes they are of, the overlap from which a box is left out, and
    with `limited` the score that must be exceeded. outs[0]: int32 [N, C, most], the boxes taken in
    order, -1 behind them.
    """

    centred: bool
    limited: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class RoiAlignSpec(Spec):
    """outs[0][r, c, rows, columns]: a region of an image pooled by bilinear samples.

    ins: images [N, C, H, W], regions [R, 4] (x0, y0, x1, y1) and their images, int64 [R]. `samples`
    of a bin along each axis, 0: as many as the bin has pixels. `half`: pixels' centres are at
    halves. `largest`: the greatest weighted pixel instead of the mean of the samples.
    """

    scale: float
    samples: int
    half: bool
    largest: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class MaxRoiPoolSpec(Spec):
    """outs[0][r, c, rows, columns]: the greatest pixels of a region's bins.

    ins: images [N, C, H, W] and regions [R, 5] (image, x0, y0, x1, y1), both ends included.
    """

    scale: float
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ForestSpec(Spec):
    """outs[0][n, t]: the votes for target t of the leaves that row n of ins[0] reaches.

    ins: rows [N, F], float32; nodes, int32 [M, 4]: feature, bits of the float32 threshold, the
    first of two children that lie side by side, a mask (1 less, 2 equal, 4 greater, 8 none of
    these, 16 the row has NaN) of what leads to the first; roots, int32 [trees]. A leaf has a
    negative child: with `alone` the bits of a weight for the threshold and a target for the mask;
    else of ins[3], int32 [V, 2], targets and bits of weights, those from ~child to before the mask.

    Children come behind their parents; features are below `features`, and all numbers name what is
    there. Votes are added in the order of the trees, in float32. `mask` is that of all nodes, -1
    where they differ, with 32 where only the bit for NaN does.
    """

    aggregate: Literal["sum", "min", "max"]
    alone: bool
    mask: int
    features: int
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class RecurrentSpec(Spec):
    """All time steps of an LSTM, GRU or RNN; G gates of H units, padded to P, a multiple of 32.

    ins: x * W + b [T, N, D, G, P]; the constant R [D, G * H, H], or `packed` [D, P / 32, H, G, 32];
    then in this order, each where its flag says so: h [D, N, H], c [D, N, H], int32 lengths [N],
    peepholes [D, 3, P], and the bias of the hidden gate's recurrence [D, P]. outs: every state
    [T, D, N, H], the last one [D, N, H], and of an LSTM its cells [D, N, H]. All but the lengths
    are float32, or all float64. A length outside [0, T] is reported and taken as 0; the last states
    of a row without steps are 0.

    kind: "LSTM" (gates i, o, f, c), "GRU" (z, r, h) or "RNN". `functions` are ONNX's f, g, h.
    Directions from number `backward_from` on go through time backwards. `reset_late` is ONNX's
    linear_before_reset; `coupled` its input_forget; `clip` 0 for none. `rounds`: states are
    quantised to uint8 before they are multiplied, a row at a time, as DynamicQuantizeLinear does.
    """

    kind: Literal["LSTM", "GRU", "RNN"]
    functions: tuple[Expr, ...]
    backward_from: int
    has_state: bool
    has_cells: bool
    has_lengths: bool
    has_peepholes: bool
    packed: bool
    reset_late: bool
    coupled: bool
    rounds: bool
    clip: float
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
