"""A model's structure without the contents of its tensors, which stay where they are.

An ONNX file is nearly all `raw_data`. A parser of protocol buffers copies it, twice with the
bytes it was given; so long contents are cut out first and replaced by tokens of 24 bytes, random in
their first 16 so that no file can hold one by chance. Followed are (field numbers of onnx.proto)

    ModelProto.graph 7 > initializer 5 > raw_data 9
    ModelProto.graph 7 > node 1 (a Constant) > attribute 5 > t 5 > raw_data 9

The wire format is that of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clinfer.graph.ir import Array

CUT_FROM = 4096
"""Contents of at least this many bytes are cut out."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OP_TYPE, _NODE, _RAW_DATA = 4, 1, 9
_TENSOR: Mapping[int, Mapping[int, object]] = {_RAW_DATA: {}}
_GRAPH = {5: _TENSOR, _NODE: {5: {5: _TENSOR}}}
_MODEL = {7: _GRAPH}


class _MalformedError(Exception):
    """The bytes are no protocol buffer."""


@dataclass(frozen=True)
class Structure:
    """`encoded` parses as the model; `contents` maps its tokens to the bytes they stand for."""

    encoded: bytes
    contents: Mapping[bytes, Array]


def cut(data: Array) -> Structure:
    """The structure of a model's bytes, given as a one-dimensional array of uint8.

    What is no protocol buffer stays as it is, for the parser to say so.
    """
    cutter = _Cutter(data)
    try:
        return Structure(cutter.message(0, len(data), _MODEL), cutter.contents)
    except _MalformedError:
        return Structure(data.tobytes(), {})


@dataclass(frozen=True)
class _Field:
    """A field at [start, stop), its value at [body, stop)."""

    number: int
    kind: int
    start: int
    body: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.body


class _Cutter:
    def __init__(self, data: Array) -> None:
        self._array = data
        self._data = memoryview(data)  # type: ignore[arg-type]
        self._random = os.urandom(16)
        self.contents: dict[bytes, Array] = {}

    def message(self, start: int, stop: int, followed: Mapping[int, object]) -> bytes:
        """The message in [start, stop), without what is cut out of its `followed` fields."""
        pieces: list[bytes | memoryview] = []
        kept = start
        for field in self._fields(start, stop):
            inner = followed.get(field.number)
            if inner is None or field.kind != _BYTES or field.nbytes < CUT_FROM:
                continue
            assert isinstance(inner, Mapping)
            if followed is _GRAPH and field.number == _NODE and not self._is_constant(field):
                continue
            made = self.message(field.body, field.stop, inner) if inner else self._token(field)
            pieces += [self._data[kept : field.start], _head(field.number, len(made)), made]
            kept = field.stop
        return b"".join([*pieces, self._data[kept:stop]])

    def _token(self, field: _Field) -> bytes:
        token = self._random + len(self.contents).to_bytes(8, "little")
        self.contents[token] = self._array[field.body : field.stop]
        return token

    def _is_constant(self, node: _Field) -> bool:
        """Other nodes keep their attributes: they may be encoded once more, for later."""
        fields = self._fields(node.body, node.stop)
        names = [bytes(self._data[f.body : f.stop]) for f in fields if f.number == _OP_TYPE]
        return bool(names) and names[-1] == b"Constant"

    def _fields(self, at: int, stop: int) -> Iterator[_Field]:
        while at < stop:
            start = at
            key, at = self._varint(at, stop)
            kind = key & 7
            if kind == _VARINT:
                body, (_, at) = at, self._varint(at, stop)
            elif kind == _BYTES:
                length, body = self._varint(at, stop)
                at = body + length
            elif kind in (_FIXED64, _FIXED32):
                body, at = at, at + (8 if kind == _FIXED64 else 4)
            else:
                raise _MalformedError
            if at > stop:
                raise _MalformedError
            yield _Field(key >> 3, kind, start, body, at)

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """A number of 7 bits a byte, the lowest first, and where it ends."""
        value = shift = 0
        while at < stop and shift < 64:
            byte = self._data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise _MalformedError


def _head(number: int, length: int) -> bytes:
    """What stands before a field of that many bytes."""
    return _encoded(number << 3 | _BYTES) + _encoded(length)


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
