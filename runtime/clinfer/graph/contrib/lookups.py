"""Look-ups in tables of few bits: the codes of the wanted rows are found first, then decoded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.contrib.packed import codes_of
from clinfer.graph.ir import Array, Value

_INTEGERS = ("uint8", "int4", "uint4")
_HALF_BYTE = "float4_e2m1fn"
_FLOATS = (
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    _HALF_BYTE,
)


class _Table(NamedTuple):
    """Codes [n, P, L] with the axis that is looked up first and the one in blocks last.

    Scales and, where they differ, zero points [n, P, blocks]; bits 0: floats of few bits.
    """

    codes: Array
    scales: Array
    zeros: Array
    bits: int
    size: int
    length: int  # of L without what fills the last block


def _gather_block_quantized(make: Maker) -> Value:
    """Gather of numbers in blocks along an axis; an index outside finds zeros."""
    rank = len(make.shape(0))
    along, cut = (
        make.attr(name, default) % rank
        for name, default in (("gather_axis", 0), ("quantize_axis", 1))
    )
    if along == cut:
        raise make.error(
            "attributes 'gather_axis' and 'quantize_axis': two axes expected, found both "
            f"{make.attr('quantize_axis', 1)}"
        )
    table, rest = _table(make, along, cut)
    indices = make.cast(make.x(1), "int64")
    found = _rows(make, table, make.reshape(indices, -1))
    # [T, P, L] as the indices' shape and the other axes, the one in blocks last
    sizes = [rest[axis] for axis in range(len(rest)) if axis != _behind(cut, along)]
    shape = make.constant([*sizes, rest[_behind(cut, along)]])
    found = make("Reshape", found, make("Concat", make("Shape", indices), shape, axis=0))
    place = _behind(cut, along)
    if along == 0 and place == len(rest) - 1:
        return found
    count = len(make.shape(1))
    kept = [count + axis for axis in range(len(rest) - 1)]
    kept.insert(place, count + len(rest) - 1)
    return make.transpose(found, *kept[:along], *range(count), *kept[along:])


def _behind(axis: int, gone: int) -> int:
    """The number of an axis where another one is gone."""
    return axis - (axis > gone)


def _table(make: Maker, along: int, cut: int) -> tuple[_Table, list[int]]:
    """The table, and the sizes of the axes that are not looked up."""
    dtype, data = make.x(0).dtype or "", make.content(0)
    bits = {"uint8": make.attr("bits", 4)}.get(dtype, 4 if dtype in _INTEGERS else 0)
    if dtype not in (*_INTEGERS, *_FLOATS):
        raise make.error(f"input 0: {', '.join((*_INTEGERS, *_FLOATS))} expected, found {dtype}")
    middle, is_float = 0, dtype in _FLOATS
    if dtype == _HALF_BYTE:
        bits, data = 4, data.view(np.uint8)
    if dtype == "uint8":
        data, middle = codes_of(data, bits), 1 << (bits - 1)
    elif not is_float:
        middle = 8 if dtype == "int4" else 0
        data = (data.astype(np.int8) + np.int8(middle)).astype(np.uint8)
    length = data.shape[cut]
    size = make.attr("block_size", 128) or length
    wanted = list(data.shape)
    wanted[cut] = -(-length // size)
    scales = _by_block(make, 2, make.content(2).astype(np.float32), wanted)
    zeros = np.full((), middle, np.uint8)
    if make.input(3) is not None:
        if is_float:
            raise make.error(f"input 3: no zero points expected for {dtype}, found {make.x(3)!r}")
        given = make.content(3)
        if dtype == "uint8":
            given = codes_of(given, bits)[..., : wanted[-1]]
        elif dtype == "int4":
            given = given.astype(np.int8) + np.int8(8)
        zeros = _by_block(make, 3, given.astype(np.uint8), wanted)
    rest = [size for axis, size in enumerate(data.shape) if axis != along]
    padding = [(0, wanted[cut] * size - length if axis == cut else 0) for axis in range(data.ndim)]
    codes, scales, zeros = (
        part if part.ndim == 0 else _flat(part, along, cut)
        for part in (np.pad(data, padding), scales, zeros)
    )
    return _Table(codes, scales, zeros, bits, size, length), rest


def _by_block(make: Maker, index: int, content: Array, wanted: list[int]) -> Array:
    """What belongs to blocks; of floats a size of 1 repeats."""
    fits = len(content.shape) == len(wanted) and all(
        found in (1, size) for found, size in zip(content.shape, wanted, strict=True)
    )
    if not fits:
        raise make.error(f"input {index}: {wanted} expected, found {list(content.shape)}")
    return np.broadcast_to(content, wanted)


def _flat(part: Array, along: int, cut: int) -> Array:
    """[n, P, L]."""
    moved = np.moveaxis(part, (along, cut), (0, -1))
    return np.ascontiguousarray(moved.reshape(moved.shape[0], -1, moved.shape[-1]))


def _rows(make: Maker, table: _Table, wanted: Value) -> Value:
    """The decoded rows [T, P * L] of indices [T]."""
    count, parts, length = table.codes.shape
    low, high = make.constant(-count), make.constant(count - 1)
    inside = make("And", make("GreaterOrEqual", wanted, low), make("LessOrEqual", wanted, high))
    safe = make("Where", inside, wanted, make.constant(0))
    blocks = length // table.size

    def of_blocks(content: Array, dtype: str) -> Value:
        flat = content.reshape(count, -1)
        found = make("Gather", make.constant(flat, dtype), safe)
        return make.cast(make.reshape(found, -1, parts, blocks, 1), "float32")

    numbers = make.cast(
        make.reshape(_codes(make, table, safe), -1, parts, blocks, table.size), "float32"
    )
    if table.zeros.ndim:
        numbers = make("Sub", numbers, of_blocks(table.zeros, "uint8"))
    elif table.zeros:
        numbers = make("Sub", numbers, make.constant(float(table.zeros), "float32"))
    dtype = make.x(2).dtype or "float32"
    numbers = make("Mul", numbers, of_blocks(table.scales, dtype))
    seen = make.reshape(inside, -1, 1, 1, 1)
    numbers = make("Where", seen, numbers, make.constant(0, "float32"))
    kept = make.reshape(numbers, -1, parts, length)
    if table.length != length:
        kept = make.slice(kept, 2, 0, table.length)
    return make.cast(kept, dtype)


def _codes(make: Maker, table: _Table, rows: Value) -> Value:
    """The codes of rows [T] as [T, P * L]; they lie in whole bytes. Of floats the numbers."""
    count, dtype = table.codes.shape[0], make.x(0).dtype or ""
    flat = table.codes.reshape(count, -1)
    if not table.bits:
        stored = make.constant(flat.view(np.uint8), "uint8")
        return make("BitCast", make("Gather", stored, rows), to=BY_NAME[dtype].onnx)
    shifts = np.arange(0, 8, table.bits, dtype=np.uint8)
    parts = flat.reshape(count, -1, len(shifts)) << shifts
    found = make("Gather", make.constant(np.bitwise_or.reduce(parts, axis=2), "uint8"), rows)
    if table.bits < 8:
        column = make.reshape(found, 0, -1, 1)
        moved = make("BitShift", column, make.constant(shifts, "uint8"), direction="RIGHT")
        found = make("BitwiseAnd", moved, make.constant((1 << table.bits) - 1, "uint8"))
    if dtype != _HALF_BYTE:
        return found
    numbers = np.arange(16, dtype=np.uint8).view(to_numpy(dtype)).astype(np.float32)
    return make("Gather", make.constant(numbers, "float32"), make.cast(found, "int32"))


RULES: dict[str, Rule] = {"GatherBlockQuantized": _gather_block_quantized}
