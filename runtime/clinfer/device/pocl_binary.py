"""PoCL's program binaries: read, rewritten, and made with one code generation instead of two.

PoCL compiles a kernel for each work-group size it is launched with. Asked for a binary, it compiles
every kernel once more for work-groups of any size, for launches that the specialised code does not
fit. Our kernels have a required work-group size and are launched without a global offset, so code
for that size ('1-1-1-goffs0'; without 'smallgrid' it is for any number of groups) fits each launch.
`final_binary` lets PoCL make only that code, and puts it where the code for any size belongs:

1.  a stub lies where PoCL would write the code for any size, so that it takes it for made;
2.  the binary is asked for with POCL_BINARY_SPECIALIZE_WG naming the one size;
3.  in the binary the stub goes, and the code stands where PoCL looks at a launch: under its size
    for grids of any extent ('1-1-1-goffs0') and for small ones ('1-1-1-goffs0-smallgrid').

The layout is version 8 in PoCL 1.8 and 3.0, 9 in 3.1, 11 in 6.0 and 7.1 (its lib/CL/pocl_binary.c):

    header   8s 'poclbin', u64 device, u32 version, u32 kernels, u64 flags,
             from 9 on: u32 entries of the program's folder that follow, 1;
             41s program's hash
             from 11 on: u64 bytes of the program's own variables
    from 9 on: u64 bytes of the entry
    file     'program.bc'
    kernel   u64 bytes of it all, u64 bytes of files, u32 bytes of arguments, string name,
             u32 arguments, u32 locals, 3 u64 work-group size, ..., file, file ...
    file     string name, string content
    string   u32 length, bytes
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

from clinfer.device.elf_stub import shared_object
from clinfer.device.opencl import environment
from clinfer.errors import listed

# Code for which groups PoCL adds to a binary; read when it is asked for.
SPECIALISE = "POCL_BINARY_SPECIALIZE_WG"
_MAGIC = b"poclbin\0"
_START = struct.Struct("<8sQIIQ")
_ENTRIES = struct.Struct("<I")
_ENTRY_SIZE = struct.Struct("<Q")
_HASH_BYTES = 41
_HEADER_ENDS = {8: "", 9: "", 11: "Q"}
"""What follows the program's hash in the header, by the versions that are known."""
_FIRST_WITH_ENTRIES = 9
_SIZES = struct.Struct("<QQ")
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_ANY_SIZE = "0-0-0"
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SIZE = re.compile(r"\d+-\d+-\d+(-goffs0)?(-smallgrid)?", re.ASCII)


class LayoutError(ValueError):
    """The bytes are not a PoCL binary of the version this module knows."""


class File(NamedTuple):
    """A file of PoCL's cache; `path` is relative to the program's folder and starts with '/'."""

    path: bytes
    content: bytes


class Kernel(NamedTuple):
    """One kernel: its description as it is, and its files of machine code."""

    name: str
    local_size: tuple[int, int, int]
    description: bytes
    files: tuple[File, ...]


class Binary(NamedTuple):
    """A program's binary, in that version of the layout."""

    version: int
    header: bytes
    program: File
    kernels: tuple[Kernel, ...]


def parse(content: bytes) -> Binary:
    """Takes a binary apart. Raises `LayoutError`."""
    reader = _Reader(content)
    magic, _device, version, kernels, _flags = _START.unpack(reader.take(_START.size))
    if magic != _MAGIC or version not in _HEADER_ENDS:
        known = listed(_HEADER_ENDS)
        raise LayoutError(f"expected {_MAGIC!r} of version {known}, found {magic!r} {version}")
    program = _program(reader, version)
    found = tuple(_kernel(reader) for _ in range(kernels))
    if reader.position != len(content):
        raise LayoutError(f"{len(content) - reader.position} bytes too many")
    header = content[: _header_size(version)]
    return Binary(version, header, program, found)


def dump(binary: Binary) -> bytes:
    """Puts a binary together again."""
    program = _file_bytes(binary.program)
    parts = [binary.header]
    if binary.version >= _FIRST_WITH_ENTRIES:
        parts.append(_ENTRY_SIZE.pack(len(program)))
    parts.append(program)
    for kernel in binary.kernels:
        files = b"".join(map(_file_bytes, kernel.files))
        size = _SIZES.size + len(kernel.description) + len(files)
        parts += [_SIZES.pack(size, len(files)), kernel.description, files]
    return b"".join(parts)


def addressed(content: bytes, device_version: str) -> bytes:
    """The binary with another device in its header: the one whose version text that is.

    PoCL takes a binary only of the device it was made on, which it knows by the FNV-1 hash of what
    stands behind 'HSTR: ' in the device's version: the processor's name. Raises `LayoutError`.
    """
    _, found, name = device_version.partition("HSTR: ")
    if not found:
        raise LayoutError(f"no device is named in {device_version!r}")
    number = _FNV_OFFSET
    for byte in name.strip().encode():
        number = (number * _FNV_PRIME) % 2**64 ^ byte
    magic, _device, *rest = _START.unpack(content[: _START.size])
    return _START.pack(magic, number, *rest) + content[_START.size :]


def without_ir(content: bytes) -> bytes:
    """The binary with no LLVM IR in it, which is half of it and holds paths of its making.

    PoCL compiles from the IR only for groups of a size that the binary has no code for; that of
    `final_binary` has it for the one size its kernels are launched with. But PoCL reads it: without
    any it ends the process when the context is released, so `check` refuses such a binary until
    `with_ir` has given it another's. Raises `LayoutError`.
    """
    binary = parse(content)
    return dump(binary._replace(program=binary.program._replace(content=b"")))


def with_ir(content: bytes, other: bytes) -> bytes:
    """The binary with the LLVM IR of another one. Raises `LayoutError`."""
    return dump(parse(content)._replace(program=parse(other).program))


def check(content: bytes, version: int) -> None:
    """Raises `LayoutError` where PoCL would read beyond the end, or write outside its folder.

    So it does for another version of the layout than that of the PoCL at hand.
    """
    binary = parse(content)
    if binary.version != version:
        raise LayoutError(f"expected version {version}, found {binary.version}")
    if binary.program.path != b"/program.bc":
        raise LayoutError(f"its program is in {binary.program.path!r}")
    if not binary.program.content:
        raise LayoutError("it holds no IR, which PoCL reads")
    for kernel in binary.kernels:
        if not _NAME.fullmatch(kernel.name):
            raise LayoutError(f"a kernel is called {kernel.name!r}")
        for file in kernel.files:
            _, name, size, code = [*file.path.decode("ascii", "replace").split("/"), "", "", ""][:4]
            if file.path != f"/{name}/{size}/{code}".encode() or not _SIZE.fullmatch(size):
                raise LayoutError(f"it holds a file {file.path!r}")
            if (name, code) != (kernel.name, f"{kernel.name}.so"):
                raise LayoutError(f"kernel '{kernel.name}' holds a file {file.path!r}")


def program_folders(folder: Path) -> frozenset[Path]:
    """The folders of programs in PoCL's cache folder."""
    return frozenset(found.parent for found in folder.glob("*/*/program.bc"))


def final_binary(program: Any, local_size: tuple[int, int, int], made: frozenset[Path]) -> bytes:
    """The binary of a program just built, with the one machine code it needs.

    `made` are the folders that building it has made: one, or none where this process has built the
    same program before. Raises `LayoutError` where this PoCL does not behave as described above;
    the program and others of the same text are of no use then.
    """
    size = "-".join(map(str, local_size)) + "-goffs0"
    if len(made) > 1:
        raise LayoutError(f"building one program has made {len(made)}")
    names = program.kernel_names
    for place in made:
        for name in names:
            stub = place / name / _ANY_SIZE / f"{name}.so"
            stub.parent.mkdir(parents=True)
            stub.write_bytes(shared_object(f"_pocl_kernel_{name}_workgroup"))
    with environment(SPECIALISE, size):
        binary = parse(program.binary())
    kernels = tuple(_with_one_code(kernel, local_size, size) for kernel in binary.kernels)
    return dump(binary._replace(kernels=kernels))


def _with_one_code(kernel: Kernel, local_size: tuple[int, int, int], size: str) -> Kernel:
    if kernel.local_size != local_size:
        raise LayoutError(
            f"kernel '{kernel.name}' requires groups of {kernel.local_size}, not {local_size}"
        )
    special = f"/{kernel.name}/{size}/{kernel.name}.so".encode()
    general = f"/{kernel.name}/{_ANY_SIZE}/{kernel.name}.so".encode()
    files = {file.path: file.content for file in kernel.files}
    if set(files) != {special, general}:
        raise LayoutError(f"kernel '{kernel.name}' has unexpected files {sorted(files)}")
    small = f"/{kernel.name}/{size}-smallgrid/{kernel.name}.so".encode()
    return kernel._replace(files=(File(small, files[special]), File(special, files[special])))


def _header_size(version: int) -> int:
    entries = _ENTRIES.size if version >= _FIRST_WITH_ENTRIES else 0
    return _START.size + entries + _HASH_BYTES + struct.calcsize(_HEADER_ENDS[version])


def _program(reader: _Reader, version: int) -> File:
    """The program's one file, from the rest of the header on."""
    end = _HASH_BYTES + struct.calcsize(_HEADER_ENDS[version])
    if version < _FIRST_WITH_ENTRIES:
        reader.take(end)
        return reader.file()
    (entries,) = _ENTRIES.unpack(reader.take(_ENTRIES.size))
    if entries != 1:
        raise LayoutError(f"it holds {entries} entries of the program's folder, not 1")
    reader.take(end)
    (size,) = _ENTRY_SIZE.unpack(reader.take(_ENTRY_SIZE.size))
    end = reader.position + size
    program = reader.file()
    if reader.position != end:
        raise LayoutError("the program's file does not end where it should")
    return program


def _kernel(reader: _Reader) -> Kernel:
    start = reader.position
    total, of_files = _SIZES.unpack(reader.take(_SIZES.size))
    description_start = reader.position
    reader.take(4)  # bytes of arguments
    name = reader.text().decode("utf-8", "replace")
    reader.take(8)  # arguments, locals
    x, y, z = struct.unpack("<3Q", reader.take(24))
    files_start = start + total - of_files
    description = reader.between(description_start, files_start)
    reader.position = files_start
    files = []
    while reader.position < start + total:
        files.append(reader.file())
    if reader.position != start + total:
        raise LayoutError(f"the files of kernel '{name}' do not end where they should")
    return Kernel(name, (x, y, z), description, tuple(files))


def _file_bytes(file: File) -> bytes:
    lengths = [struct.pack("<I", len(part)) for part in (file.path, file.content)]
    return lengths[0] + file.path + lengths[1] + file.content


class _Reader:
    """Takes bytes from the front; never beyond the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def take(self, count: int) -> bytes:
        taken = self._content[self.position : self.position + count]
        if len(taken) != count:
            raise LayoutError("it ends too early")
        self.position += count
        return taken

    def between(self, start: int, end: int) -> bytes:
        if not self.position <= end <= len(self._content):
            raise LayoutError("a length does not fit")
        return self._content[start:end]

    def text(self) -> bytes:
        (length,) = struct.unpack("<I", self.take(4))
        return self.take(length)

    def file(self) -> File:
        path = self.text()
        return File(path, self.text())
