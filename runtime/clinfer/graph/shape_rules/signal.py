"""Fourier transforms, and regions pooled to one size."""

from __future__ import annotations

from clinfer.dtypes import BY_ONNX
from clinfer.graph.shape_call import Call, Rule, Type
from clinfer_kernels.dims import Dim, floordiv


def dft(call: Call) -> list[Type]:
    """DFT: the length along the axis, half of it and one `onesided`; complex, or real again."""
    shape = list(call.shape(0))
    axis = call.normal(-2 if not call.has(2) else call.ints(2)[0], len(shape))
    back = bool(call.attr("inverse", 0)) and bool(call.attr("onesided", 0))
    if axis == len(shape) - 1:
        raise call.error("an axis before the last one, which holds real and imaginary parts")
    size: Dim = 2 * (shape[axis] - 1) if back else shape[axis]
    if call.has(1):
        size = _scalar(call, 1, axis)
    if call.attr("onesided", 0) and not back:
        if shape[-1] == 2:
            raise call.error("real input (a last axis of 1) expected with onesided")
        size = floordiv(size, 2) + 1
    shape[axis] = size
    shape[-1] = 1 if back else 2
    return [Type(call.dtype(0), tuple(shape))]


def stft(call: Call) -> list[Type]:
    """STFT: [batch, frames, bins, 2]."""
    batch, size, *_ = call.shape(0)
    length: Dim = call.shape(2)[0] if call.has(2) else size
    step = call.content(1)
    frames: Dim = call.fresh(0, 1)
    bins: Dim = call.fresh(0, 2)
    if call.has(3):
        given = call.content(3)
        if given is None:
            return [Type(call.dtype(0), (batch, frames, bins, 2))]
        length = given.ravel()[0]
    call.at_most(length, size, "the length of a frame and of the signal")
    bins = floordiv(length, 2) + 1 if call.attr("onesided", 1) else length
    if step is not None:
        hop = step.ravel()[0]
        if isinstance(hop, int) and hop < 1:
            raise call.error(f"a positive frame_step expected, found {hop}")
        frames = floordiv(size - length, hop) + 1
    return [Type(call.dtype(0), (batch, frames, bins, 2))]


def _scalar(call: Call, index: int, axis: int) -> Dim:
    """The content of a scalar input; a symbol of its own where only the run can tell."""
    content = call.content(index)
    return call.fresh(0, axis) if content is None else content.ravel()[0]


def mel_weight_matrix(call: Call) -> list[Type]:
    """MelWeightMatrix: [half the samples and one, mel bins]."""
    samples, bins = call.content(1), call.content(0)
    rows = call.fresh(0, 0) if samples is None else floordiv(samples.ravel()[0], 2) + 1
    columns = call.fresh(0, 1) if bins is None else bins.ravel()[0]
    return [Type(BY_ONNX[call.attr("output_datatype", 1)].name, (rows, columns))]


def max_roi_pool(call: Call) -> list[Type]:
    """MaxRoiPool: [regions, channels, pooled sizes]."""
    x, rois = call.shape(0), call.shape(1)
    pooled = call.attr("pooled_shape")
    if len(x) != 4 or len(rois) != 2 or pooled is None or len(pooled) != 2:
        raise call.error("a 4-d input, 2-d regions and two sizes in pooled_shape expected")
    if min(pooled) < 1:
        raise call.error(f"positive sizes in pooled_shape expected, found {list(pooled)}")
    call.equal(rois[1], 5, "the numbers that describe a region and 5")
    return [Type(call.dtype(0), (rois[0], x[1], *(int(p) for p in pooled)))]


RULES: dict[str, Rule] = {
    "DFT": dft,
    "STFT": stft,
    "MelWeightMatrix": mel_weight_matrix,
    "MaxRoiPool": max_roi_pool,
}
