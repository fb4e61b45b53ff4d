"""The convolution family against ONNX Runtime: windows, groups, remainders, views, epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, numpy_dtype, run_kernel, view_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from windows import channels_first, channels_last, run_node

from clinfer_kernels import conv
from clinfer_kernels.contraction.matrix_units import EMULATED
from clinfer_kernels.contraction.tiles import LocalTile
from clinfer_kernels.conv_cpu import CpuTile
from clinfer_kernels.conv_gpu import GpuTile
from clinfer_kernels.conv_grouped import GroupedTile
from clinfer_kernels.conv_winograd import WinogradTile
from clinfer_kernels.conv_winograd_gpu import WinogradGpuTile
from clinfer_kernels.dims import Dim, evaluate, floordiv, sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.spec import Target, Tensor, dense
from clinfer_kernels.specs import ConvSpec, PreparedConvSpec

Array = np.ndarray[Any, Any]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
rng = np.random.default_rng(11)


@dataclass(frozen=True)
class Window:
    """A convolution of [n, *size, c] with m filters; attributes as in ONNX."""

    c: int
    m: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    groups: int = 1
    n: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    constant: bool = True
    dtype: str = "float32"

    @property
    def full(self) -> Window:
        """With every attribute written out."""
        rank = len(self.size)
        return replace(
            self,
            strides=self.strides or (1,) * rank,
            pads=self.pads or (0,) * (2 * rank),
            dilations=self.dilations or (1,) * rank,
            output_padding=self.output_padding or (0,) * rank,
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.transposed:
            return (self.c, self.m // self.groups, *self.kernel)
        return (self.m, self.c // self.groups, *self.kernel)

    def out_size(self, size: Sequence[Dim]) -> tuple[Dim, ...]:
        """The output's spatial shape, for sizes or symbols."""
        made = []
        for d, n in enumerate(size):
            reach = self.dilations[d] * (self.kernel[d] - 1) + 1
            pad = self.pads[d] + self.pads[d + len(size)]
            if self.transposed:
                made.append((n - 1) * self.strides[d] + reach - pad + self.output_padding[d])
            else:
                made.append(floordiv(n + pad - reach, self.strides[d]) + 1)
        return tuple(made)

    def reference(self, x: Array, w: Array) -> Array:
        """Channels last, as ONNX Runtime computes it."""
        attrs: dict[str, Any] = {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads,
            "dilations": self.dilations,
            "group": self.groups,
        }
        if self.transposed:
            attrs["output_padding"] = self.output_padding
        op = "ConvTranspose" if self.transposed else "Conv"
        wide = np.float64 if self.dtype == "float64" else np.float32
        first = channels_first(x.astype(wide))
        return channels_last(run_node(op, [first, w.astype(wide)], attrs)[0])

    def spec(self, x: Tensor, out: Tensor, epilogue: Expr, operands: Sequence[Tensor]) -> ConvSpec:
        return ConvSpec(
            kernel=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            groups=self.groups,
            constant_w=self.constant,
            epilogue=epilogue,
            ins=(x, dense(self.dtype, self.weight_shape), *operands),
            outs=(out,),
            transposed=self.transposed,
        )


def data(window: Window) -> tuple[Array, Array]:
    """An input, channels last, and weights."""
    x = rng.standard_normal((window.n, *window.size, window.c))
    depth = np.prod(window.weight_shape[1:])
    w = rng.standard_normal(window.weight_shape) / np.sqrt(depth)
    dtype = numpy_dtype(window.dtype)
    return x.astype(dtype), w.astype(dtype)


def check(
    window: Window,
    target: Target,
    tolerance: float = 2e-5,
    tile: Any = None,
    infinite: bool = False,
) -> None:
    """Runs the window with an identity epilogue on dense tensors.

    `tile` is a candidate, or a class: the first candidate of it. `infinite`: one input is.
    """
    window = window.full
    x, w = data(window)
    if infinite:
        x.reshape(-1)[x.size // 2] = np.inf
    shape = (window.n, *window.out_size(window.size), window.m)
    out = dense(window.dtype, shape)
    spec = window.spec(dense(window.dtype, x.shape), out, identity(window.dtype), ())
    if tile is None or isinstance(tile, type):
        tiles = conv.candidates(spec, target)
        tile = next(t for t in tiles if tile is None or isinstance(t, tile))
    kernel = conv.emit(spec, tile, target)
    made = run_kernel(kernel, [x, w], [(shape, window.dtype)])[0]
    expected = window.reference(x, w)
    np.testing.assert_allclose(made.astype(expected.dtype), expected, tolerance, tolerance)


PLAIN = {
    "3x3": Window(5, 10, (9, 7), (3, 3), pads=(1, 1, 1, 1)),
    "few channels": Window(3, 19, (11, 13), (7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    "one filter": Window(17, 1, (5, 5), (3, 3)),
    "1x1": Window(17, 33, (5, 7), (1, 1), n=3),
    "1x1 strided": Window(16, 24, (9, 8), (1, 1), strides=(2, 2)),
    "1x1 padded": Window(4, 8, (4, 4), (1, 1), pads=(1, 0, 0, 1)),
    "asymmetric": Window(6, 16, (8, 9), (2, 3), pads=(0, 2, 1, 0), strides=(1, 2)),
    "dilated": Window(8, 16, (12, 11), (3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
    "dilated beyond the input": Window(8, 16, (5, 6), (3, 3), (), (6, 4, 6, 4), (6, 4)),
    "window larger than input": Window(4, 8, (2, 3), (5, 5), pads=(2, 2, 2, 2)),
    "grouped": Window(12, 30, (7, 6), (3, 3), groups=3, pads=(1, 1, 1, 1), n=2),
    "in fours": Window(32, 32, (7, 6), (3, 3), groups=8, pads=(1, 1, 1, 1)),
    "multiplier": Window(4, 8, (6, 6), (3, 3), groups=4),
    "1d": Window(5, 9, (20,), (3,), strides=(2,), pads=(1, 1), n=2),
    "3d": Window(3, 17, (5, 6, 7), (3, 2, 3), strides=(1, 2, 1), pads=(1, 0, 1, 1, 1, 1), n=2),
    "depthwise": Window(19, 19, (9, 17), (3, 3), pads=(1, 1, 1, 1), groups=19, n=2),
    "depthwise strided": Window(16, 16, (9, 17), (5, 5), (2, 2), (2, 1, 2, 2), groups=16),
    "depthwise dilated": Window(24, 24, (8, 9), (3, 3), (1, 2), (2, 3, 2, 3), (2, 3), 24),
    "depthwise 1d": Window(8, 8, (20,), (4,), pads=(3, 0), groups=8),
    "depthwise wide": Window(16, 16, (3, 45), (2, 31), pads=(0, 15, 1, 15), groups=16),
    "depthwise 3d": Window(9, 9, (4, 5, 6), (3, 3, 3), pads=(1,) * 6, groups=9),
    "1x1x1": Window(7, 5, (3, 4, 5), (1, 1, 1)),
}


@BOTH
@pytest.mark.parametrize("window", PLAIN.values(), ids=PLAIN)
def test_windows(window: Window, target: Target) -> None:
    check(window, target)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Any attributes that leave an output, in two dimensions."""
    pair = st.tuples
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    window = Window(
        c=groups * draw(st.integers(1, 4)),
        m=groups * draw(st.integers(1, 9)),
        size=draw(pair(st.integers(8, 13), st.integers(8, 13))),
        kernel=draw(pair(st.integers(1, 4), st.integers(1, 4))),
        strides=draw(pair(st.integers(1, 3), st.integers(1, 3))),
        pads=draw(pair(*[st.integers(0, 2)] * 4)),
        dilations=draw(pair(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
        n=draw(st.integers(1, 2)),
        transposed=draw(st.booleans()),
    ).full
    assume(min(window.out_size(window.size)) > 0)
    return window


@settings(max_examples=12, deadline=None)
@given(windows())
def test_any_window(window: Window) -> None:
    """The general schedules, whose texts are the same for all of these."""
    check(window, TARGETS["gpu"], tile=GpuTile)
    check(window, TARGETS["cpu"], tile=CpuTile())


EVERY = {
    "conv": Window(10, 21, (9, 8), (3, 3), pads=(1, 1, 1, 1)),
    "depthwise": Window(18, 18, (9, 8), (3, 3), pads=(1, 1, 1, 1), groups=18),
    "transposed depthwise": Window(9, 9, (4, 5), (3, 3), (2, 2), groups=9, transposed=True),
}


@BOTH
@pytest.mark.parametrize("window", EVERY.values(), ids=EVERY)
def test_every_candidate(window: Window, target: Target) -> None:
    shape = (1, *window.full.out_size(window.size), window.m)
    x = dense("float32", (1, *window.size, window.c))
    spec = window.full.spec(x, dense("float32", shape), identity("float32"), ())
    for tile in conv.candidates(spec, target):
        check(window, target, tile=tile)


@pytest.mark.parametrize(
    "name", ["3x3", "few channels", "one filter", "1x1", "depthwise", "in fours"]
)
def test_wide_registers(name: str) -> None:
    processor = Path("/proc/cpuinfo")
    if not processor.exists() or "avx512f" not in processor.read_text():
        pytest.skip("the processor has no 512-bit registers")
    check(PLAIN[name], Target(vector_width=16))


GROUPED = {
    "4 of 4": Window(16, 16, (9, 8), (3, 3), pads=(1, 1, 1, 1), groups=4, n=2),
    "2 of 1": Window(16, 32, (7, 9), (5, 5), (2, 2), (2, 1, 2, 2), groups=16),
    "2 of 4": Window(32, 16, (5, 6), (3, 3), dilations=(2, 5), pads=(2, 5, 2, 5), groups=8),
    "float16": Window(32, 32, (5, 6), (1, 3), pads=(0, 1, 0, 1), groups=8, dtype="float16"),
}


@pytest.mark.parametrize("window", GROUPED.values(), ids=GROUPED)
def test_filters_of_several_groups_in_a_vector(window: Window) -> None:
    check(window, TARGETS["cpu"], 2e-3 if window.dtype == "float16" else 2e-5, tile=GroupedTile)


WINOGRAD = {
    "4 x 4": (Window(32, 40, (17, 22), (3, 3), pads=(1, 1, 1, 1)), 4),
    "2 x 2": (Window(48, 32, (9, 7), (3, 3), pads=(0, 1, 2, 0), n=2), 2),
}


@pytest.mark.parametrize(("window", "out"), WINOGRAD.values(), ids=WINOGRAD)
def test_winograd(window: Window, out: int) -> None:
    """Tiles over the ends of the output, missing tiles, filters that fill no panel."""
    for is_local in (False, True):
        check(window, TARGETS["cpu"], 1e-4, WinogradTile(out, 6, 2, 8, is_local=is_local))


@pytest.mark.parametrize(
    ("size", "out"), [((56, 56), (4, 2)), ((14, 14), (2, 4)), ((5, 5), ())], ids=str
)
def test_winograd_where_it_pays(size: tuple[int, int], out: tuple[int, ...]) -> None:
    """For images that are large enough, on devices with enough memory of the kind it uses."""
    window = Window(64, 64, size, (3, 3), pads=(1, 1, 1, 1)).full
    x = dense("float32", (1, *size, 64))
    spec = window.spec(x, x, identity("float32"), ())
    targets = [
        (Target(local_mem=4096), out),
        (Target(local_mem=1 << 20, dialect="intel"), out),
        (Target(local_mem=4096, dialect="intel"), ()),
    ]
    for target, expected in targets:
        tiles = conv.candidates(spec, target)
        assert tuple(t.out for t in tiles if isinstance(t, WinogradTile)) == expected


def test_winograd_where_sizes_are_free() -> None:
    """An axis that only a run gives counts as a few tiles; one known to be short does not."""
    window = Window(64, 64, (0, 0), (3, 3), pads=(1, 1, 1, 1)).full
    n, h, w = sym("n"), sym("h"), sym("w")
    for shape, pays in (((n, h, w, 64), True), ((n, 28, 28, 64), True), ((n, 5, 5, 64), False)):
        spec = window.spec(
            dense("float32", shape), dense("float32", shape), identity("float32"), ()
        )
        assert isinstance(conv.candidates(spec, Target())[0], WinogradTile) == pays


WINOGRAD_GPU = {
    "ends": Window(32, 40, (17, 22), (3, 3), pads=(1, 1, 1, 1)),
    "odd filters": Window(36, 33, (9, 7), (3, 3), pads=(0, 1, 2, 0), n=2),
}


WINOGRAD_CUTS = {
    "lanes": LocalTile(8, 16, 8, 4),
    "dpas": LocalTile(4, 16, 8, 4, 16, unit="dpas8_bf16x3" + EMULATED),
}


@pytest.mark.parametrize("cut", WINOGRAD_CUTS.values(), ids=WINOGRAD_CUTS)
@pytest.mark.parametrize("window", WINOGRAD_GPU.values(), ids=WINOGRAD_GPU)
def test_winograd_on_gpus(window: Window, cut: LocalTile) -> None:
    """Tiles over the ends of the output, filters that fill no panel, padding on some sides."""
    check(window, TARGETS["gpu"], 1e-4, WinogradGpuTile(cut))


@pytest.mark.parametrize("kind", ["normal", "positive"])
def test_winograd_errors_on_gpus(kind: str) -> None:
    """Of the largest sum of terms' magnitudes at most 64 times 2^-24, of the largest result 2e-5:
    about a digit more than the 2^-20.5 and 1.6e-6 of multiply-adds."""
    window = Window(256, 32, (12, 12), (3, 3)).full
    x, w = data(window)
    if kind == "positive":
        x, w = abs(x), abs(w)
    target, shape = TARGETS["gpu"], (1, 10, 10, 32)
    spec = window.spec(dense("float32", x.shape), dense("float32", shape), identity("float32"), ())
    kernel = conv.emit(spec, WinogradGpuTile(LocalTile(8, 16, 8, 4)), target)
    made = run_kernel(kernel, [x, w], [(shape, "float32")])[0]
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (1, 2))
    expected = np.einsum("nhwcij,mcij->nhwm", windows, w, optimize=True)
    magnitudes = np.einsum("nhwcij,mcij->nhwm", abs(windows), abs(w), optimize=True)
    error = abs(made - expected).max()
    assert error <= 64 * 2**-24 * magnitudes.max()
    assert error <= 2e-5 * abs(expected).max()


def _is_winograd(shape: Sequence[Dim], filters: int, target: Target, **how: Any) -> bool:
    """Whether Winograd's method comes first for a 3 x 3 window; `how`: attributes of it."""
    attributes: dict[str, Any] = {"pads": (1, 1, 1, 1), **how}
    channels = shape[-1]
    assert isinstance(channels, int)
    window = Window(channels, filters, (0, 0), (3, 3), **attributes).full
    out = (shape[0], *window.out_size(shape[1:3]), filters)
    x, y = dense(window.dtype, shape), dense(window.dtype, out)
    first = conv.candidates(window.spec(x, y, identity(window.dtype), ()), target)[0]
    return isinstance(first, WinogradGpuTile)


def test_winograd_where_it_pays_on_gpus() -> None:
    """With many channels and tiles; operands and sums of float32, whatever unit multiplies them."""
    intel = Target("gpu", compute_units=512, dialect="intel", matrix_units=("shuffled_f32",))
    nvidia = Target("gpu", compute_units=132, dialect="nvidia", matrix_units=("mma_3xtf32",))
    exact = nvidia._replace(precision="3xtf32")
    thirds = intel._replace(precision="bf16x3", matrix_units=("dpas8_bf16x3", "shuffled_f32"))
    for target in (intel, nvidia, exact, thirds):
        assert _is_winograd((32, 14, 14, 256), 256, target)
        assert not _is_winograd((1, 7, 7, 512), 512, target)
        assert not _is_winograd((32, 112, 112, 32), 32, target)
        assert _is_winograd((sym("n"), 14, 14, 256), 256, target)
    large = (32, 14, 14, 256)
    assert not _is_winograd((32, 14, 14, 258), 256, intel)
    assert not _is_winograd(large, 256, intel, strides=(2, 2))
    assert not _is_winograd(large, 256, intel, dtype="float16")
    assert not _is_winograd(large, 256, intel, constant=False)
    assert not _is_winograd((512, 28, 28, 256), 256, intel), "more than a GiB in between"
    assert not _is_winograd(large, 256, nvidia._replace(precision="tf32"))


def test_winograd_where_sizes_are_free_on_gpus() -> None:
    """Sizes choose between the two ways; relu(conv + bias) + residual."""
    window = Window(128, 128, (0, 0), (3, 3), pads=(1, 0, 1, 1)).full
    n, h, w = sym("n"), sym("h"), sym("w")
    shape: tuple[Dim, ...] = (n, *window.out_size((h, w)), 128)
    b = Builder(["float32"] * 3)
    relu = b.op("max_with", b.const(0.0, "float32"), b.op("add", 0, 1))
    epilogue = b.build(b.op("add", relu, 2))
    bias = Tensor("float32", shape, (0, 0, 0, 1))
    x, out = dense("float32", (n, h, w, 128)), dense("float32", shape)
    spec = window.spec(x, out, epilogue, (bias, out))
    target = TARGETS["gpu"]._replace(compute_units=1, dialect="")
    kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
    for sizes, is_winograd in (((2, 9, 6), False), ((2, 31, 30), True), ((0, 9, 6), False)):
        values = dict(zip("nhw", sizes, strict=True))
        running = [x.entry for x in kernel.launches if evaluate(x.when, values)]
        assert (running[0] == "conv_winograd4_input") == is_winograd
        assert all(("winograd" in entry) == is_winograd for entry in running)
        sized = replace(window, n=sizes[0], size=sizes[1:])
        pixels, weights = data(sized)
        biases = rng.standard_normal(128, np.float32)
        made_shape = (sizes[0], *sized.out_size(sizes[1:]), 128)
        residual = rng.standard_normal(made_shape, np.float32)
        if not residual.size:
            continue
        ins = [pixels, weights, biases, residual]
        made = run_kernel(kernel, ins, [(made_shape, "float32")], values)[0]
        expected = np.maximum(sized.reference(pixels, weights) + biases, 0) + residual
        np.testing.assert_allclose(made, expected, 1e-4, 1e-4)


@pytest.mark.parametrize(("channels", "k_step"), [(3, 16), (32, 32)])
def test_pieces_of_one_element_want_a_tile_that_leaves_registers_for_them(channels, k_step) -> None:
    """With 32 values of k a work-item would copy 32 elements, and keep where each window lies."""
    sets = {"matrix_units": ("dpas8_f16",), "precision": "f16", "subgroup_sizes": (8, 16, 32)}
    target = Target("gpu", 512, max_work_group=1024, local_mem=65536, dialect="intel", **sets)
    pads = (3, 3, 3, 3)
    window = Window(channels, 64, (224, 224), (7, 7), pads=pads, strides=(2, 2), n=32).full
    x, out = (dense("float32", shape) for shape in ((32, 224, 224, channels), (32, 112, 112, 64)))
    cut = conv.candidates(window.spec(x, out, identity("float32"), ()), target)[0].cut
    assert (cut.tile_m, cut.tile_n, cut.k_step) == (128, 64, k_step)


def test_limits_of_the_device() -> None:
    """No work-group and no local memory beyond what the device has."""
    window = EVERY["conv"].full
    shape = (1, *window.out_size(window.size), window.m)
    x = dense("float32", (1, *window.size, window.c))
    spec = window.spec(x, dense("float32", shape), identity("float32"), ())
    for work_group, local_mem in ((64, 4096), (16, 1024)):
        target = Target(cls="gpu", max_work_group=work_group, local_mem=local_mem)
        tiles = conv.candidates(spec, target)
        assert tiles
        for tile in tiles:
            for launch in conv.emit(spec, tile, target).launches:
                assert np.prod(launch.local_size) <= work_group
        check(window, target, tile=tiles[0])


@BOTH
def test_dynamic_sizes(target: Target) -> None:
    """One kernel, symbols for batch, height and width, three sizes."""
    window = Window(6, 20, (0, 0), (3, 3), pads=(1, 0, 1, 1), strides=(2, 1)).full
    n, h, w = sym("n"), sym("h"), sym("w")
    shape: tuple[Dim, ...] = (n, *window.out_size((h, w)), window.m)
    b = Builder(["float32", "float32", "float32"])
    epilogue = b.build(b.op("mul", b.op("add", 0, 1), 2))
    bias = Tensor("float32", shape, (0, 0, 0, 1))
    scale = Tensor("float32", shape, (window.m, 0, 0, 1))
    spec = window.spec(
        dense("float32", (n, h, w, window.c)), dense("float32", shape), epilogue, (bias, scale)
    )
    kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
    for sizes in ((1, 5, 6), (3, 9, 4), (2, 2, 13)):
        sized = replace(window, n=sizes[0], size=sizes[1:])
        x, weights = data(sized)
        biases = rng.standard_normal(window.m, np.float32)
        scales = rng.standard_normal((sizes[0], window.m), np.float32)
        out = (sizes[0], *sized.out_size(sizes[1:]), window.m)
        values = dict(zip("nhw", sizes, strict=True))
        made = run_kernel(kernel, [x, weights, biases, scales], [(out, "float32")], values)[0]
        expected = (sized.reference(x, weights) + biases) * scales[:, None, None]
        np.testing.assert_allclose(made, expected, 2e-5, 2e-5)


@BOTH
def test_epilogue_with_residual(target: Target) -> None:
    """relu(conv + bias) + residual, the residual a transposed view, the output a slice."""
    window = Window(8, 19, (6, 7), (3, 3), pads=(1, 1, 1, 1)).full
    x, w = data(window)
    bias = rng.standard_normal(19, np.float32)
    base = rng.standard_normal((1, 19, 6, 7), np.float32)
    residual = np.moveaxis(base, 1, -1)
    shape = (1, 6, 7, 19)
    b = Builder(["float32"] * 3)
    relu = b.op("max_with", b.const(0.0, "float32"), b.op("add", 0, 1))
    epilogue = b.build(b.op("add", relu, 2))
    whole = (1, 6, 7, 40)
    out = Tensor("float32", shape, (6 * 7 * 40, 7 * 40, 40, 1), 21)
    operands = (Tensor("float32", shape, (0, 0, 0, 1)), view_of(residual, base))
    spec = window.spec(dense("float32", x.shape), out, epilogue, operands)
    kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
    into = np.zeros(whole, np.float32)
    made = run_kernel(kernel, [x, w, bias, base], [into])[0]
    expected = np.maximum(window.reference(x, w) + bias, 0) + residual
    np.testing.assert_allclose(made[..., 21:], expected, 2e-5, 2e-5)
    assert not made[..., :21].any()


@BOTH
def test_input_of_any_strides(target: Target) -> None:
    """The input is a channels-first array seen channels last."""
    window = Window(3, 8, (9, 10), (3, 3), strides=(2, 2), n=2).full
    x, w = data(window)
    base = channels_first(x)
    view = np.moveaxis(base, 1, -1)
    shape = (2, *window.out_size(window.size), 8)
    out = dense("float32", shape)
    spec = window.spec(view_of(view, base), out, identity("float32"), ())
    kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [base, w], [(shape, "float32")])[0]
    np.testing.assert_allclose(made, window.reference(x, w), 2e-5, 2e-5)


TRANSPOSED = {
    "stride 2": Window(6, 10, (4, 5), (4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),
    "output padding": Window(5, 3, (3, 4), (3, 3), strides=(2, 3), output_padding=(1, 2)),
    "kernel below stride": Window(4, 4, (3, 3), (2, 1), strides=(3, 2)),
    "dilated": Window(3, 5, (5, 4), (3, 2), strides=(2, 1), dilations=(2, 3), pads=(1, 2, 0, 1)),
    "dilated like its stride": Window(4, 6, (4, 4), (3, 3), strides=(2, 2), dilations=(2, 2)),
    "grouped": Window(6, 9, (4, 4), (3, 3), groups=3, strides=(2, 2), n=2),
    "depthwise": Window(9, 9, (4, 5), (4, 4), (2, 2), (1, 1, 1, 1), groups=9),
    "1d": Window(4, 7, (6,), (5,), strides=(3,), pads=(2, 1)),
    "3d": Window(2, 3, (2, 3, 2), (2, 3, 2), strides=(2, 1, 2)),
}


@BOTH
@pytest.mark.parametrize("window", TRANSPOSED.values(), ids=TRANSPOSED)
def test_transposed(window: Window, target: Target) -> None:
    check(replace(window, transposed=True), target)


@BOTH
@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
def test_weights_computed_at_run_time(transposed: bool, target: Target) -> None:
    window = Window(6, 10, (5, 5), (3, 3), (2, 2), groups=2, transposed=transposed)
    check(replace(window, constant=False), target)


@BOTH
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float16", 2e-3), ("bfloat16", 2e-2)]
)
def test_dtypes(dtype: str, tolerance: float, target: Target) -> None:
    check(Window(9, 21, (6, 5), (3, 3), pads=(1, 1, 1, 1), dtype=dtype), target, tolerance)


@BOTH
def test_empty_batch(target: Target) -> None:
    window = Window(4, 8, (5, 5), (3, 3), n=0).full
    x, w = data(window)
    shape = (0, 3, 3, 8)
    out = dense("float32", shape)
    spec = window.spec(dense("float32", x.shape), out, identity("float32"), ())
    kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
    run_kernel(kernel, [np.zeros(1, np.float32), w], [((1,), "float32")])


@pytest.mark.parametrize("name", ["3x3", "few channels", "grouped", "in fours", "1d"])
def test_packed_weights_are_shared(name: str) -> None:
    """Texts depend on neither sizes nor windows; packed layouts are named by what they hold."""
    target = TARGETS["cpu"]
    window = PLAIN[name].full
    kernels = []
    for wider in (40, 44):
        sized = replace(window, size=tuple(n + wider for n in window.size))
        shape = (sized.n, *sized.out_size(sized.size), sized.m)
        x = dense("float32", (sized.n, *sized.size, sized.c))
        spec = sized.spec(x, dense("float32", shape), identity("float32"), ())
        kernels.append(conv.emit(spec, conv.candidates(spec, target)[0], target))
    one, other = kernels
    assert [p.key for p in one.packs] == [p.key for p in other.packs]
    assert [x.source for x in one.launches] == [x.source for x in other.launches]


PREPARED = {
    "7x7": Window(3, 20, (11, 13), (7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    "two groups": Window(4, 8, (6, 7), (3, 3), pads=(1, 1, 1, 1), groups=2),
    "depthwise": Window(3, 3, (6, 7), (3, 3), pads=(1, 0, 1, 2), groups=3),
    "not constant": Window(3, 8, (6, 7), (3, 3), pads=(1, 1, 1, 1), constant=False),
}


@BOTH
@pytest.mark.parametrize("name", PREPARED)
def test_a_prologue_prepares_what_is_read_and_not_the_padding(name, target):
    window = PREPARED[name].full
    builder = Builder(["uint8", "float32", "float32"])
    moved = builder.op("sub", builder.op("cast", 0, dtype="float32"), 1)
    prologue = builder.build(builder.op("div", moved, 2))
    _, w = data(window)
    x = rng.integers(0, 256, (window.n, *window.size, window.c)).astype(np.uint8)
    mean, scale = rng.uniform(1, 200, (2, window.c)).astype(np.float32)
    shape = (window.n, *window.out_size(window.size), window.m)
    plain = window.spec(dense("uint8", x.shape), dense("float32", shape), identity("float32"), ())
    by_channel = Tensor("float32", x.shape, (0,) * (x.ndim - 1) + (1,), 0)
    one = Tensor("float32", x.shape, (0,) * x.ndim, 0)
    expected = window.reference((x - mean) / scale[:1], w)
    spec = PreparedConvSpec(
        **{**vars(plain), "ins": (*plain.ins, by_channel, one)}, prologue=prologue
    )
    for tile in dict.fromkeys(conv.candidates(spec, target)):
        kernel = conv.emit(spec, tile, target)
        made = run_kernel(kernel, [x, w, mean, scale[:1]], [(shape, "float32")])[0]
        np.testing.assert_allclose(made, expected, 1e-4, 1e-4)
