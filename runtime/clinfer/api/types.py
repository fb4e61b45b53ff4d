"""`Type`: element types by OpenVINO's names."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from clinfer import dtypes
from clinfer.errors import InputError

# OpenVINO's name, clinfer's (which is ONNX's and NumPy's), and the bits of an element.
_ROWS = (
    ("f32", "float32", 32),
    ("f64", "float64", 64),
    ("f16", "float16", 16),
    ("bf16", "bfloat16", 16),
    ("i8", "int8", 8),
    ("i16", "int16", 16),
    ("i32", "int32", 32),
    ("i64", "int64", 64),
    ("u8", "uint8", 8),
    ("u16", "uint16", 16),
    ("u32", "uint32", 32),
    ("u64", "uint64", 64),
    ("boolean", "bool", 8),
    ("string", "string", 0),
    ("i4", "int4", 4),
    ("u4", "uint4", 4),
    ("u2", "uint2", 2),
    ("f8e4m3", "float8_e4m3fn", 8),
    ("f8e5m2", "float8_e5m2", 8),
    ("f8e8m0", "float8_e8m0fnu", 8),
    ("f4e2m1", "float4_e2m1fn", 4),
    ("dynamic", "unknown", 0),
)
_BY_ANY = {key: row for row in _ROWS for key in row[:2]}


class Type:
    """An element type. `Type.f32`, `Type(np.float32)`, `Type("f32")` and `Type("float32")` are one.

    Types that OpenVINO has no name for keep ONNX's.
    """

    __slots__ = ("bitwidth", "dtype", "type_name")

    f32: ClassVar[Type]
    f64: ClassVar[Type]
    f16: ClassVar[Type]
    bf16: ClassVar[Type]
    i8: ClassVar[Type]
    i16: ClassVar[Type]
    i32: ClassVar[Type]
    i64: ClassVar[Type]
    u8: ClassVar[Type]
    u16: ClassVar[Type]
    u32: ClassVar[Type]
    u64: ClassVar[Type]
    boolean: ClassVar[Type]
    string: ClassVar[Type]
    i4: ClassVar[Type]
    u4: ClassVar[Type]
    u2: ClassVar[Type]
    f8e4m3: ClassVar[Type]
    f8e5m2: ClassVar[Type]
    f8e8m0: ClassVar[Type]
    f4e2m1: ClassVar[Type]
    dynamic: ClassVar[Type]

    def __init__(self, given: Any) -> None:
        """Raises `InputError` for what names no element type."""
        name = _name(given)
        self.type_name, self.dtype, self.bitwidth = _BY_ANY.get(name) or (name, name, _bits(name))

    @classmethod
    def named(cls, dtype: str) -> Type:
        """The type of that name in clinfer; `dynamic` for what holds no tensor."""
        return cls(dtype if dtype in dtypes.BY_NAME else "dynamic")

    def to_dtype(self) -> np.dtype[Any]:
        """The NumPy dtype. Raises `InputError` for `dynamic`."""
        if self.is_dynamic():
            raise InputError("the type 'dynamic' has no NumPy dtype")
        return dtypes.to_numpy(self.dtype)

    def to_string(self) -> str:
        """'f32'."""
        return self.type_name

    def get_type_name(self) -> str:
        """'f32'."""
        return self.type_name

    @property
    def size(self) -> int:
        """Bytes that an element takes, at least 1; 0 where that is not known."""
        return (self.bitwidth + 7) // 8

    def get_size(self) -> int:
        """As `size`."""
        return self.size

    def get_bitwidth(self) -> int:
        """As `bitwidth`."""
        return self.bitwidth

    @property
    def real(self) -> bool:
        """Whether it is a floating-point type."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def integral(self) -> bool:
        """Whether it is an integer type, or boolean."""
        return self.integral_number or self.dtype == "bool"

    @property
    def integral_number(self) -> bool:
        """Whether it is an integer type."""
        return self.dtype.startswith(("int", "uint"))

    @property
    def signed(self) -> bool:
        """Whether it has values below 0."""
        return self.real or self.dtype.startswith("int")

    @property
    def quantized(self) -> bool:
        """Whether it is an integer of 8 bits or less."""
        return self.integral_number and self.bitwidth <= 8

    def is_real(self) -> bool:
        """As `real`."""
        return self.real

    def is_integral(self) -> bool:
        """As `integral`."""
        return self.integral

    def is_integral_number(self) -> bool:
        """As `integral_number`."""
        return self.integral_number

    def is_signed(self) -> bool:
        """As `signed`."""
        return self.signed

    def is_quantized(self) -> bool:
        """As `quantized`."""
        return self.quantized

    def is_dynamic(self) -> bool:
        """Whether it stands for any type."""
        return self.type_name == "dynamic"

    def is_static(self) -> bool:
        """Whether it stands for one type."""
        return not self.is_dynamic()

    def compatible(self, other: Type) -> bool:
        """Whether both can be the same type."""
        return self == other or self.is_dynamic() or other.is_dynamic()

    def merge(self, other: Type) -> Type | None:
        """The type that both can be; None where there is none."""
        if not self.compatible(other):
            return None
        return other if self.is_dynamic() else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.type_name == other.type_name

    def __hash__(self) -> int:
        return hash(self.type_name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Type, (self.type_name,)

    def __repr__(self) -> str:
        return f"<Type: '{self.dtype}'>"


def _name(given: Any) -> str:
    if isinstance(given, Type):
        return given.type_name
    if isinstance(given, str) and (given in _BY_ANY or given in dtypes.BY_NAME):
        return given
    try:
        dtype = None if given is None else np.dtype(given)  # NumPy's None is float64
    except (TypeError, ValueError):  # a text may also be no UTF-8
        dtype = None
    if dtype is not None:
        name = "string" if dtype.kind in "OSU" else dtype.name
        if name in _BY_ANY or name in dtypes.BY_NAME:
            return name
    known = ", ".join(row[0] for row in _ROWS)
    raise InputError(f"{given!r} is no element type; expected a NumPy dtype, or one of {known}")


def _bits(name: str) -> int:
    return dtypes.BY_NAME[name].size * 8


for _row in _ROWS:
    setattr(Type, _row[0], Type(_row[0]))
