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

from clinfer_kernels.expr import Expr
from clinfer_kernels.spec import Tensor


@dataclass(frozen=True)
class PointwiseSpec:
    """outs[j][i] = expr(ins[0][i], ins[1][i], ...)[j]; all views have one shape, any strides."""

    expr: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class IotaSpec:
    """outs[0][i] = start + i * step along `axis`; ins = (start, step) scalars (0-d tensors)."""

    axis: int
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ReduceSpec:
    """Reduces `prologue(ins[:n])` over `axes`, then applies `epilogue(result, ins[n:])`.

    op: sum, mean, max, min, prod, sum_square, l1, l2, log_sum, log_sum_exp, argmax, argmin, any,
    all.
    ins[:n] have the input's full shape; ins[n:] and outs[0] have that shape with `axes` set to 1
    (keepdims form; lowering drops the dimensions as a view). n = len(prologue.inputs).
    argmax / argmin: out is int64, `select_last` as in ONNX.
    """

    op: str
    axes: tuple[int, ...]
    prologue: Expr
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    select_last: bool = False


@dataclass(frozen=True)
class SoftmaxSpec:
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
class NormSpec:
    """(x - mean) / sqrt(var + eps) over the last `axes` dims (rms: x / sqrt(mean(x^2) + eps)).

    x = prologue(ins[:n]); epilogue operand 0 is the normalised value (scale and bias are epilogue
    operands, broadcast views), the rest ins[n:]. outs[0]: epilogue's output. A second entry in
    `outs` stores x itself (the prologue's value), which is how a residual sum is kept. Statistics
    are taken in float32 (float64 for float64), two-pass.
    """

    rms: bool
    axes: int
    eps: float
    prologue: Expr
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class MatmulSpec:
    """outs[0] = epilogue(ins[0] @ ins[1], ins[2:]).

    ins[0]: [batch..., M, K], ins[1]: [batch..., K, N], outs[0]: [batch..., M, N], equal ranks >= 2,
    batch dimensions already broadcast (stride 0). Any strides: transposed operands come as views.
    `constant_b`: ins[1] is a constant with stride-0 batch, to be packed when compiled (`Pack` gets
    the array as the view describes it without the batch dimensions: shape [K, N]).
    Integer dtypes accumulate in the output's dtype.
    """

    constant_b: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class AttentionSpec:
    """outs[0] = softmax(ins[0] @ ins[1]^T * scale + mask) @ ins[2].

    ins: q [B, H, Sq, D], k [B, Hkv, Sk, D], v [B, Hkv, Sk, Dv], and with `has_mask` an additive
    mask view broadcast to [B, H, Sq, Sk] (bool: True keeps; False adds -inf). outs[0]:
    [B, H, Sq, Dv], any strides. H is a multiple of Hkv (query head h uses key head
    h // (H / Hkv)).
    `causal`: key j is seen by query i when j <= i + (Sk - Sq).
    A query that sees no key gives NaN, as the softmax of a row of -inf does.
    """

    scale: float
    causal: bool
    has_mask: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ConvSpec:
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


@dataclass(frozen=True)
class PoolSpec:
    """Pooling, channels last. kind: max, average, lp.

    ins[0]: [N, spatial..., C]; outs[0]: [N, out spatial..., C]; outs[1], if present (max): int64
    flat indices of the maxima as ONNX counts them in the NC-spatial layout (`column_major` as
    storage_order). `count_include_pad` for averages, `p` for lp. epilogue as in ConvSpec.
    """

    kind: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    count_include_pad: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    p: int = 2
    column_major: bool = False


@dataclass(frozen=True)
class ResizeSpec:
    """Interpolates along every axis where input and output sizes differ (`axes`), any layout.

    mode: nearest, linear, cubic. coordinates / rounding / cubic_a / exclude_outside /
    extrapolation as in ONNX's Resize. `scales`: the factor per axis of `axes`, as floats where
    known when compiled; None takes it from the sizes (out / in).
    """

    mode: str
    coordinates: str
    rounding: str
    axes: tuple[int, ...]
    scales: tuple[float | None, ...]
    cubic_a: float
    exclude_outside: bool
    extrapolation: float
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class GatherSpec:
    """kind 'axis': outs[0][pre, idx..., post] = ins[0][pre, ins[1][idx...], post] along `axis`.

    kind 'elements': GatherElements. kind 'nd': GatherND with `batch_dims`. Negative indices count
    from the end. Indices are int32 or int64; out-of-range ones are clamped (ONNX leaves it open).
    """

    kind: str
    axis: int
    batch_dims: int
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ScatterSpec:
    """ins = (data, indices, updates); outs[0] starts as data. kind: 'elements' | 'nd'.

    reduction: none, add, mul, max, min. Runs without atomics: the launch over updates is ordered
    so that duplicates give the sequential result.
    """

    kind: str
    axis: int
    reduction: str
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class PadSpec:
    """mode: constant, reflect, edge, wrap. `begins` per axis (may be negative: cropping).

    constant: ins[1], if present, is the 0-d value; else zero.
    """

    mode: str
    begins: tuple[int, ...]
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ScanSpec:
    """Cumulative `op` (sum, prod) along `axis`; exclusive and reverse as in ONNX's CumSum."""

    op: str
    axis: int
    exclusive: bool
    reverse: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class TopKSpec:
    """The k = outs[0].shape[axis] largest (or smallest) along `axis`, sorted.

    outs[1]: their int64 indices.
    """

    axis: int
    largest: bool
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]


@dataclass(frozen=True)
class RecurrentSpec:
    """All time steps of an LSTM, GRU or RNN; G gates of H units, padded to P, a multiple of 32.

    ins: x * W + b [T, N, D, G, P]; the constant R [D, G * H, H]; then in this order, each where
    its flag says so: h [D, N, H], c [D, N, H], int32 lengths [N], peepholes [D, 3, P], and the bias
    of the hidden gate's recurrence [D, P]. outs: every state [T, D, N, H], the last one [D, N, H],
    and of an LSTM its cells [D, N, H].

    kind: "LSTM" (gates i, o, f, c), "GRU" (z, r, h) or "RNN". `functions` are ONNX's f, g, h.
    Directions from number `backward_from` on go through time backwards. `reset_late` is ONNX's
    linear_before_reset; `coupled` its input_forget; `clip` 0 for none.
    """

    kind: str
    functions: tuple[Expr, ...]
    backward_from: int
    has_state: bool
    has_cells: bool
    has_lengths: bool
    has_peepholes: bool
    reset_late: bool
    coupled: bool
    clip: float
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
