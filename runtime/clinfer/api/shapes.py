"""`Dimension`, `PartialShape` and `Layout`: sizes that may be open, in OpenVINO's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from clinfer.errors import InputError, ShapeError
from clinfer.sizes import Shape, dimension_name

if TYPE_CHECKING:
    from clinfer.ports import Port

_MOST = 2**63 - 1  # what OpenVINO says where a dimension has no greatest size


class Dimension:
    """A size from `min_length` to `max_length`; -1 stands for no greatest.

    `Dimension(3)`, `Dimension(1, 8)`, `Dimension()` and `Dimension(-1)` for any,
    `Dimension("1..8")`. `name` is that of a dynamic dimension, where it has one.
    """

    __slots__ = ("max_length", "min_length", "name")

    def __init__(self, least: Any = -1, most: int | None = None, name: str | None = None) -> None:
        """Raises `InputError` for what is no size."""
        self.name = name
        if most is not None:
            self.min_length, self.max_length = _limits(least, most)
        elif isinstance(least, str):
            self.min_length, self.max_length, self.name = _read(least)
        else:
            self.min_length, self.max_length = _limits_of(least)

    @staticmethod
    def dynamic() -> Dimension:
        """A dimension of any size."""
        return Dimension()

    @property
    def is_static(self) -> bool:
        """Whether it has one size."""
        return self.min_length == self.max_length

    @property
    def is_dynamic(self) -> bool:
        """Whether it may have several sizes."""
        return not self.is_static

    def get_length(self) -> int:
        """The size. Raises `ShapeError` where it may have several."""
        if self.is_dynamic:
            raise ShapeError(f"the dimension {self} is dynamic and has no length")
        return self.min_length

    def get_min_length(self) -> int:
        """The least size."""
        return self.min_length

    def get_max_length(self) -> int:
        """The greatest size, -1 where there is none."""
        return self.max_length

    def compatible(self, other: Any) -> bool:
        """Whether both can have the same size."""
        found = as_dimension(other)
        return self.min_length <= found._most and found.min_length <= self._most

    def relaxes(self, other: Any) -> bool:
        """Whether it has all sizes of the other."""
        found = as_dimension(other)
        return self.min_length <= found.min_length and found._most <= self._most

    def refines(self, other: Any) -> bool:
        """Whether the other has all its sizes."""
        return as_dimension(other).relaxes(self)

    def same_scheme(self, other: Any) -> bool:
        """Whether both are dynamic, or the same size."""
        found = as_dimension(other)
        return (self.is_dynamic and found.is_dynamic) or self == found

    def to_string(self) -> str:
        """'3', '1..8', '4..' or '?'."""
        if self.is_static:
            return str(self.min_length)
        if self.max_length == -1:
            return f"{self.min_length}.." if self.min_length else "?"
        return f"{self.min_length}..{self.max_length}"

    @property
    def _most(self) -> int:
        return _MOST if self.max_length == -1 else self.max_length

    def __len__(self) -> int:
        return self.get_length()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int) and not isinstance(other, bool):
            other = Dimension(other)
        if not isinstance(other, Dimension):
            return NotImplemented
        return (self.min_length, self.max_length) == (other.min_length, other.max_length)

    def __hash__(self) -> int:
        return hash(self.min_length if self.is_static else (self.min_length, self.max_length))

    def __str__(self) -> str:
        return self.to_string()

    def __repr__(self) -> str:
        return f"<Dimension: {self}>"


class PartialShape:
    """A shape whose sizes, or even whose rank, may be open.

    From a list of sizes, -1, '?', '1..8', (1, 8) or `Dimension`s, or from text: '?,3,224,224';
    '...' is a shape of any rank.
    """

    __slots__ = ("_dims",)

    def __init__(self, dims: Any) -> None:
        """Raises `InputError` for what is no shape."""
        if isinstance(dims, PartialShape):
            self._dims: tuple[Dimension, ...] | None = dims._dims
        elif isinstance(dims, str):
            text = dims.strip().removeprefix("[").removesuffix("]").strip()
            parts = text.split(",") if text else []
            self._dims = None if text == "..." else tuple(map(as_dimension, parts))
        elif isinstance(dims, Iterable):
            self._dims = tuple(as_dimension(size) for size in dims)
        else:
            raise InputError(f"a shape is a list of sizes, or text like '?,3,8'; found {dims!r}")

    @classmethod
    def of_port(cls, port: Port) -> PartialShape:
        """The shape of a model's input or output."""
        if port.shape is None:
            return cls.dynamic()
        bounds = port.bounds
        dims = []
        for axis, size in enumerate(port.shape):
            least, most = bounds.get(axis, (0, None))
            name = size if isinstance(size, str) else None
            fixed = isinstance(size, int)
            dims.append(size if fixed else Dimension(least, -1 if most is None else most, name))
        return cls(dims)

    @staticmethod
    def dynamic(rank: int | Dimension | None = None) -> PartialShape:
        """A shape of any sizes, and of any rank where that is not given."""
        if rank is None:
            return PartialShape("...")
        return PartialShape([-1] * as_dimension(rank).get_length())

    @property
    def rank(self) -> Dimension:
        """The number of dimensions."""
        return Dimension() if self._dims is None else Dimension(len(self._dims))

    @property
    def is_static(self) -> bool:
        """Whether all sizes are known."""
        return self._dims is not None and all(dim.is_static for dim in self._dims)

    @property
    def is_dynamic(self) -> bool:
        """Whether some size is not known."""
        return not self.is_static

    @property
    def all_non_negative(self) -> bool:
        """Whether no size is below 0: always."""
        return True

    def get_shape(self) -> Shape:
        """The sizes. Raises `ShapeError` where one is not known."""
        if self.is_dynamic:
            raise ShapeError(f"the shape {self} is dynamic: it has no fixed sizes")
        return Shape(dim.get_length() for dim in self._known("a shape"))

    def to_shape(self) -> Shape:
        """As `get_shape`."""
        return self.get_shape()

    def get_min_shape(self) -> Shape:
        """The least sizes."""
        return Shape(dim.min_length for dim in self._known("a least shape"))

    def get_max_shape(self) -> Shape:
        """The greatest sizes, 2**63 - 1 where there is none."""
        return Shape(dim._most for dim in self._known("a greatest shape"))

    def get_dimension(self, index: int) -> Dimension:
        """The dimension at an index. Raises `InputError` where there is none."""
        dims = self._known("dimensions")
        if not -len(dims) <= index < len(dims):
            raise InputError(f"the shape {self} has no dimension {index}")
        return dims[index]

    def compatible(self, other: Any) -> bool:
        """Whether both can be the same shape."""
        return self._both(other, Dimension.compatible, rankless=True)

    def relaxes(self, other: Any) -> bool:
        """Whether it stands for all shapes that the other stands for."""
        return self._dims is None or self._both(other, Dimension.relaxes)

    def refines(self, other: Any) -> bool:
        """Whether the other stands for all shapes that it stands for."""
        return PartialShape(other).relaxes(self)

    def same_scheme(self, other: Any) -> bool:
        """Whether both have the same sizes where known, and are dynamic at the same places."""
        found = PartialShape(other)
        if self._dims is None or found._dims is None:
            return self._dims is found._dims
        return self._both(found, Dimension.same_scheme)

    def to_string(self) -> str:
        """'[?,3,1..8]'."""
        return "[...]" if self._dims is None else f"[{','.join(map(str, self._dims))}]"

    def _known(self, what: str) -> tuple[Dimension, ...]:
        if self._dims is None:
            raise ShapeError(f"a shape of any rank has no {what}")
        return self._dims

    def _both(self, other: Any, holds: Any, rankless: bool = False) -> bool:
        found = PartialShape(other)._dims
        if self._dims is None or found is None:
            return rankless
        return len(self._dims) == len(found) and all(map(holds, self._dims, found))

    def __len__(self) -> int:
        return len(self._known("length"))

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self._known("dimensions"))

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return PartialShape(self._known("dimensions")[key])
        return self.get_dimension(key)

    def __setitem__(self, index: int, size: Any) -> None:
        dims = list(self._known("dimensions"))
        self.get_dimension(index)
        dims[index] = as_dimension(size)
        self._dims = tuple(dims)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (PartialShape, list, tuple, str)):
            return NotImplemented
        return self._dims == PartialShape(other)._dims

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.to_string()

    def __repr__(self) -> str:
        return f"<PartialShape: {self}>"


class Layout:
    """What the dimensions of a tensor mean: 'NCHW', '[N,C,H,W]', 'N...C' or '?C??'."""

    __slots__ = ("_names",)

    def __init__(self, text: str = "") -> None:
        """Raises `InputError` for what is no layout."""
        self._names = _layout_names(text)

    @staticmethod
    def scalar() -> Layout:
        """The layout of a tensor without dimensions."""
        return Layout("**SCALAR**")

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return self._names == ("...",)

    def has_name(self, name: str) -> bool:
        """Whether one dimension is called that."""
        return name.upper() in self._names

    def get_index_by_name(self, name: str) -> int:
        """The position of a dimension, from the end (below 0) where it stands behind '...'.

        Raises `InputError` where no dimension is called that.
        """
        if not self.has_name(name):
            raise InputError(f"the layout {self} has no dimension {name!r}")
        index = self._names.index(name.upper())
        behind = "..." in self._names and index > self._names.index("...")
        return index - len(self._names) if behind else index

    def to_string(self) -> str:
        """'[N,C,H,W]'."""
        return f"[{','.join(self._names)}]" if self._names else "**SCALAR**"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Layout(other)
        return isinstance(other, Layout) and self._names == other._names

    def __hash__(self) -> int:
        return hash(self._names)

    def __str__(self) -> str:
        return self.to_string()

    def __repr__(self) -> str:
        return f"<Layout: {self}>"


def as_dimension(given: Any) -> Dimension:
    """What a user gives for one dimension. Raises `InputError` for what is none."""
    return given if isinstance(given, Dimension) else Dimension(given)


def _limits(least: Any, most: Any) -> tuple[int, int]:
    low, high = _whole(least), _whole(most)
    low = max(low, 0)
    if high != -1 and not low <= high:
        raise InputError(f"a dimension from {least} to {most} has no size")
    return low, high


def _limits_of(given: Any) -> tuple[int, int]:
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return _limits(*given)
    if hasattr(given, "min_length") and hasattr(given, "max_length"):
        return _limits(given.min_length, given.max_length)
    if given is None:
        return 0, -1
    size = _whole(given)
    return (0, -1) if size == -1 else (size, size)


def _read(text: str) -> tuple[int, int, str | None]:
    word = text.strip()
    least, dots, most = word.partition("..")
    if dots:
        return *_limits(least or 0, most or -1), None
    if word.lstrip("-").isdigit():
        return *_limits_of(int(word)), None
    return 0, -1, dimension_name(word)


def _whole(given: Any) -> int:
    try:
        if isinstance(given, (bool, float)):
            raise ValueError(given)
        size = int(given)
    except (TypeError, ValueError):
        size = -2
    if size < -1:
        raise InputError(f"{given!r} is no size: expected one from 0, -1 or '?' for any, or '1..8'")
    return size


def _layout_names(text: Any) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise InputError(f"a layout is text like 'NCHW'; found {text!r}")
    plain = text.strip().upper()
    if plain == "**SCALAR**":
        return ()
    if plain.startswith("[") and plain.endswith("]"):
        names = [name.strip() for name in plain[1:-1].split(",")]
    else:
        names = list(plain.replace("...", ".")) or ["."]
    names = ["..." if name in (".", "...") else name for name in names]
    known = [name for name in names if name != "?"]
    if len(known) != len(set(known)) or not all(n in ("?", "...") or n.isalnum() for n in names):
        raise InputError(f"{text!r} is no layout: expected letters, each once, '?' or '...'")
    return tuple(names)
