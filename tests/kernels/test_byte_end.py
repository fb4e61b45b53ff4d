"""Convolutions that end in bytes, with a table behind or not, against NumPy; ties to even."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import TARGETS, run_kernel

from clinfer_kernels import conv, lookup, pointwise
from clinfer_kernels.conv_integer import IntegerTile
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.integer_dot import unit
from clinfer_kernels.requantise import requantised
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.terms import Term
from clinfer_kernels.types import TABLE
from kernels.test_integer import BEST, BY_UNIT, UNITS, conv_spec, integers

RNG = np.random.default_rng(3)
SCALE = 0.125  # a power of two, so that floats are exact and there are ties


def ending(dtype: str, zero: int, full: bool, with_table: bool, as_operand: bool) -> Expr:
    """Quantises the sum's eighth; the zero point is a literal, or operand 1; the table is last."""
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if full else (limits.min + 9, limits.max - 20)
    operands = ["float32"] * as_operand + [TABLE] * with_table
    builder = Builder(["int32", *operands])
    scaled = Term(builder, 0).cast("float32") * SCALE
    value = scaled.op("round").number
    point = builder.const(float(zero), "float32")
    moved = builder.op("add", value, point)
    bounds = [builder.const(float(n), "float32") for n in (low, high)]
    above = builder.op("gt", moved, bounds[0], dtype="bool")
    raised = builder.op("where", above, moved, bounds[0], dtype="float32")
    made = builder.op("cast", builder.op("min", raised, bounds[1]), dtype=dtype)
    expr = requantised(builder.build(made))
    if as_operand:
        expr = _zero_as_operand(expr, zero)
    if with_table:
        last = Builder(expr.inputs)
        (made,) = last.inline(expr, range(len(expr.inputs)))
        expr = last.build(last.op("lookup", made, len(expr.inputs) - 1, dtype=dtype))
    return expr


def _zero_as_operand(expr: Expr, zero: int) -> Expr:
    builder = Builder(expr.inputs)
    numbers = list(range(len(expr.inputs)))
    for line in expr.lines:
        is_zero = line.op == "const" and line.attrs[0] == zero and line.dtype == "float32"
        args = (numbers[a] for a in line.args)
        made = 1 if is_zero else builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs)
        numbers.append(made)
    return builder.build(*(numbers[v] for v in expr.outputs))


@UNITS
@pytest.mark.parametrize("with_table", [False, True], ids=["plain", "table"])
def test_a_convolution_ends_in_bytes(target, with_table: bool) -> None:
    lanes = unit(target).lanes
    tiles = [(1, 1), (6, 1), (5, 2), (2, 3), (3, 4)] if target is BEST else [(6, 1), (3, 4)]
    for number, (rows, vecs) in enumerate(tiles):
        dtype = ("uint8", "int8")[number % 2]
        zero = (7, 100, -90, 250, -3)[number] if dtype == "int8" else (0, 7, 255)[number % 3]
        as_operand = number % 3 == 1 and zero not in (0, 255)
        x, w = integers("uint8", 1, 2, 2 * rows + 1, 4), integers("int8", vecs * lanes + 3, 4, 1, 1)
        x[0, 0, 0] = w[0] = 0
        spec, sums = conv_spec(x, w, 5, (1, 1), (0,) * 4, 1)
        table = integers(dtype, 256)
        limits = np.iinfo(dtype)
        expr = ending(dtype, zero, number != 2, with_table, as_operand)
        low, high = (limits.min + 9, limits.max - 20) if number == 2 else (limits.min, limits.max)
        wanted = np.clip(np.rint(sums * SCALE) + zero, low, high).astype(dtype)
        operands = [np.float32(zero)] * as_operand
        if with_table:
            wanted = table[wanted.view(np.uint8)]
            operands.append(table.view("V256").reshape(()))
        names = ["float32"] * as_operand + [TABLE] * with_table
        views = [Tensor(name, sums.shape, (0,) * sums.ndim) for name in names]
        spec = replace(
            spec, epilogue=expr, ins=(*spec.ins, *views), outs=(dense(dtype, sums.shape),)
        )
        kernel = conv.emit(spec, IntegerTile(rows, vecs, lanes), target)
        found = run_kernel(kernel, [x, w, *operands], [(sums.shape, dtype)])[0]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("cls", [*TARGETS, *BY_UNIT])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_table_is_looked_up_by_bits(cls: str, dtype: str) -> None:
    target = (TARGETS | BY_UNIT)[cls]
    x, table = integers(dtype, 3, 333), integers(dtype, 256)
    x.reshape(-1)[:256] = np.arange(256, dtype=np.uint8).view(dtype)
    builder = Builder([dtype, TABLE])
    expr = builder.build(builder.op("lookup", 0, 1, dtype=dtype))
    views = (dense(dtype, x.shape), Tensor(TABLE, x.shape, (0, 0)))
    spec = PointwiseSpec(expr, views, (dense(dtype, x.shape),))
    for tile in pointwise.candidates(spec, target)[:2]:
        kernel = pointwise.emit(spec, tile, target)
        found = run_kernel(kernel, [x, table.view("V256").reshape(())], [(x.shape, dtype)])[0]
        np.testing.assert_array_equal(found, table[x.view(np.uint8)])


def test_permutations_are_for_processors_that_have_them() -> None:
    text = lookup.helper("lookup_uchar16", BEST._replace(architecture="skx/x86-64-v4"))
    assert text is not None
    assert "vpermi2b" not in text
