"""Convolutions of a few filters have one for each pixel of a block, or for each phase."""

from __future__ import annotations

import pytest

from passes.passes_helpers import check, model, random


def _filters(graph):
    return [n.required(1).const.shape[0] for n in graph.nodes if n.kind == "clinfer.Conv"]


@pytest.mark.parametrize(("filters", "taken"), [(1, [16]), (2, [16]), (3, [15]), (5, [5])])
def test_a_block_of_pixels_has_a_filter_for_each(filters, taken):
    constants = {"w": random((filters, 6, 5, 5), 1), "b": random((filters,), 2)}
    body = "c = Conv<pads = [2, 1, 2, 3]>(x, w, b) y = Tanh(c)"
    proto = model(f"float[n, 6, h, v] x => float[n, {filters}, h, v] y", body, constants)
    feeds = [{"x": random(shape)} for shape in ((1, 6, 7, 48), (2, 6, 4, 37))]
    graph = check(proto, *feeds, rtol=1e-4, atol=1e-4, cls="cpu")
    assert _filters(graph) == taken
    assert _filters(check(proto, feeds[0], rtol=1e-4, atol=1e-4)) == [filters]


@pytest.mark.parametrize(("stride", "taps", "taken"), [(2, 31, 16), (3, 40, 16), (4, 5, 1)])
def test_a_block_of_strided_windows_is_so_much_wider(stride, taps, taken):
    """Filters that decimate; where windows share little, blocks would multiply by zero mostly."""
    constants = {"w": random((1, 1, taps), 1)}
    body = f"y = Conv<strides = [{stride}], pads = [7, 4]>(x, w)"
    proto = model("float[n, 1, v] x => float[n, 1, m] y", body, constants)
    feeds = [{"x": random((2, 1, width))} for width in (300, 301)]
    graph = check(proto, *feeds, rtol=1e-4, atol=1e-4, cls="cpu")
    assert _filters(graph) == [taken]


def test_rows_of_fewer_pixels_than_two_blocks_and_dilated_windows_stay():
    constants = {"w": random((1, 6, 5), 1)}
    for width, attrs in ((20, ""), (80, "<dilations = [2]>")):
        proto = model(
            f"float[1, 6, {width}] x => float[1, 1, n] y", f"y = Conv{attrs}(x, w)", constants
        )
        graph = check(proto, {"x": random((1, 6, width))}, rtol=1e-4, atol=1e-4, cls="cpu")
        assert _filters(graph) == [1]


@pytest.mark.parametrize(
    ("window", "attrs"),
    [
        ((16,), "strides = [8], pads = [4, 4]"),
        ((512,), "strides = [128]"),
        ((7,), "strides = [3], pads = [4, 6]"),
        ((4, 4), "strides = [2, 2], pads = [1, 1, 1, 1]"),
        ((9, 9), "strides = [3, 3], pads = [4, 4, 4, 4], output_padding = [2, 2]"),
        ((3, 2), "strides = [2, 1], pads = [0, 1, 1, 0]"),
        ((2, 2, 2), "strides = [2, 2, 2]"),
    ],
)
def test_a_transposed_convolution_has_a_filter_for_each_phase(window, attrs):
    sizes = (9, 6, 4)[: len(window)]
    constants = {"w": random((5, 3, *window), 1), "b": random((3,), 2)}
    names = ", ".join(f"s{a}" for a in range(len(window)))
    wide = ", ".join(f"t{a}" for a in range(len(window)))
    proto = model(
        f"float[n, 5, {names}] x => float[n, 3, {wide}] y",
        f"y = ConvTranspose<{attrs}>(x, w, b)",
        constants,
    )
    feed = {"x": random((2, 5, *sizes))}
    graph = check(proto, feed, rtol=1e-4, atol=1e-4, cls="cpu")
    assert not [n for n in graph.nodes if n.kind == "clinfer.ConvTranspose"]
    assert _filters(graph)


def test_what_no_window_reaches_stays_a_transposed_convolution():
    """Padding of the result beyond what the last pixel's window and its phases fill."""
    constants = {"w": random((5, 1, 2), 1)}
    body = "y = ConvTranspose<strides = [2], output_padding = [1]>(x, w)"
    proto = model("float[1, 5, 9] x => float[1, 1, 19] y", body, constants)
    graph = check(proto, {"x": random((1, 5, 9))}, rtol=1e-4, atol=1e-4, cls="cpu")
    assert [n for n in graph.nodes if n.kind == "clinfer.ConvTranspose"]
    assert not _filters(graph)
