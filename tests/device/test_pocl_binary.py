"""PoCL's binaries: one code a kernel, any number of groups; other bytes are refused."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.device import link_libraries, pocl_binary
from clinfer.device.discover import open_device
from clinfer.device.elf_stub import shared_object
from clinfer.device.opencl import cl
from clinfer.device.pocl_binary import Binary, File, Kernel, LayoutError
from clinfer.device.programs import SourceProgram, build, load
from clinfer.errors import BuildError

TEXT = """
__kernel __attribute__((reqd_work_group_size(4, 1, 1)))
void count(__global int *x)
{
    x[get_global_id(0)] = (int)get_group_id(0) + (int)get_local_id(0);
}
"""
COUNT = SourceProgram(TEXT, "", "count", (4,))


@pytest.fixture(scope="module")
def device():
    os.environ["CLINFER_CPU_PLATFORM"] = "Portable"
    yield open_device("CPU")
    del os.environ["CLINFER_CPU_PLATFORM"]


@pytest.fixture(scope="module")
def binary(device) -> bytes:
    return build(device, [COUNT])[0].binary()


def test_it_holds_one_code_for_its_size_of_groups(binary):
    (kernel,) = pocl_binary.parse(binary).kernels
    assert (kernel.name, kernel.local_size) == ("count", (4, 1, 1))
    assert len({file.content for file in kernel.files}) == 1
    assert all(file.path.startswith(b"/count/4-1-1-goffs0") for file in kernel.files)
    assert pocl_binary.dump(pocl_binary.parse(binary)) == binary


def test_a_binary_of_another_version_is_refused(device, binary):
    version = pocl_binary.parse(binary).version
    assert version == device.quirks.binary_layout
    pocl_binary.check(binary, version)
    program, kernel = pocl_binary.parse(binary).program, pocl_binary.parse(binary).kernels[0]
    for other in {8, 9} - {version}:
        foreign = made(other, program, kernel)
        pocl_binary.check(foreign, other)
        with pytest.raises(LayoutError, match=f"expected version {version}, found {other}"):
            pocl_binary.check(foreign, version)
        with pytest.raises(BuildError, match="not a binary of PoCL"):
            load(device, COUNT, foreign)


def made(version: int, program: File, kernel: Kernel) -> bytes:
    """A binary in that version of the layout, as PoCL's lib/CL/pocl_binary.c writes it."""
    header = struct.pack("<8sQIIQ", b"poclbin", 0, version, 1, 0)
    header += (struct.pack("<I", 1) if version == 9 else b"") + bytes(41)
    return pocl_binary.dump(Binary(version, header, program, (kernel,)))


@pytest.mark.parametrize(
    ("place", "format_", "value", "reason"),
    [
        (32, "<I", 2, "holds 2 entries"),
        (32, "<I", 0, "holds 0 entries"),
        (77, "<Q", 20, "does not end where it should"),
        (77, "<Q", 2**63, "does not end where it should"),
        (16, "<I", 10, "expected .* of version 8, 9, 11, found .* 10"),
    ],
)
def test_version_9_says_how_many_files_a_program_has(place, format_, value, reason):
    program = File(b"/program.bc", b"content")
    description = struct.pack("<II", 0, 1) + b"k" + bytes(8) + struct.pack("<3Q", 1, 1, 1)
    whole = made(9, program, Kernel("k", (1, 1, 1), description, ()))
    assert pocl_binary.parse(whole).program == program
    damaged = bytearray(whole)
    struct.pack_into(format_, damaged, place, value)
    with pytest.raises(LayoutError, match=reason):
        pocl_binary.parse(bytes(damaged))


@pytest.mark.parametrize("groups", [3, 70_000])
def test_small_and_large_grids_run_the_stored_code(device, binary, groups):
    loaded = load(device, COUNT, binary)
    buffer = cl().Buffer(device.context, cl().mem_flags.READ_WRITE, groups * 4 * 4)
    kernel = loaded.kernel()
    kernel.set_arg(0, buffer)
    queue = device.new_queue()
    cl().enqueue_nd_range_kernel(queue, kernel, (groups * 4,), (4,))
    found = np.empty((groups, 4), np.int32)
    cl().enqueue_copy(queue, found, buffer)
    np.testing.assert_array_equal(found, np.arange(groups)[:, None] + np.arange(4))


def test_another_size_of_groups_is_refused(device, binary):
    with pytest.raises(BuildError, match=r"requires work-groups of \(4, 1, 1\), not \(8, 1, 1\)"):
        load(device, COUNT._replace(local_size=(8,)), binary)


@pytest.mark.parametrize(
    "path",
    [b"/count/../../evil", b"/../count/4-1-1/count.so", b"count/4-1-1/count.so", b"/etc/passwd"],
)
def test_files_outside_the_programs_folder_are_refused(binary, path):
    whole = pocl_binary.parse(binary)
    files = (File(path, b"x"),)
    bad = whole._replace(kernels=(whole.kernels[0]._replace(files=files),))
    with pytest.raises(LayoutError):
        pocl_binary.check(pocl_binary.dump(bad), whole.version)
    moved = whole._replace(program=File(path, whole.program.content))
    with pytest.raises(LayoutError):
        pocl_binary.check(pocl_binary.dump(moved), whole.version)


def test_every_truncation_is_refused(binary):
    version = pocl_binary.parse(binary).version
    for length in [*range(400), *range(400, len(binary), 997), len(binary) - 1]:
        with pytest.raises(LayoutError):
            pocl_binary.check(binary[:length], version)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_headers_and_lengths_raise_nothing_else(data):
    version = data.draw(st.sampled_from([8, 9]))
    header = struct.pack("<8sQIIQ", b"poclbin", 0, version, 1, 0)
    header += struct.pack("<I", 1) * (version - 8)
    content = bytearray(header + bytes(41) + data.draw(st.binary(max_size=300)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(LayoutError):
        pocl_binary.check(bytes(content), version)


def test_the_stub_is_a_shared_object_with_that_symbol(tmp_path):
    file = tmp_path / "stub.so"
    file.write_bytes(shared_object("_pocl_kernel_count_workgroup"))
    library = ctypes.CDLL(str(file))
    assert library._pocl_kernel_count_workgroup
    with pytest.raises(AttributeError):
        library.something_else  # noqa: B018


def test_the_stub_asks_for_no_executable_stack():
    """The loader of glibc 2.41 and later refuses an object that does, or that does not say."""
    content = shared_object("f")
    (count,) = struct.unpack_from("<H", content, 56)
    headers = [struct.unpack_from("<II", content, 64 + 56 * index) for index in range(count)]
    assert (0x6474E551, 6) in headers  # PT_GNU_STACK, readable and writable


@pytest.mark.skipif(
    shutil.which("ld") is None or not sys.platform.startswith("linux"), reason="needs ld"
)
def test_kernels_link_where_no_compiler_is_installed(tmp_path, monkeypatch):
    open_device("CPU")  # with PoCL, libgcc_s is in this process
    monkeypatch.setattr(link_libraries, "_COMPILERS", ())
    monkeypatch.setenv(link_libraries.VARIABLE, "/of/the/user")
    user, folder = link_libraries.search_path().split(os.pathsep)
    assert user == "/of/the/user"
    asked = ["-lgcc", "--as-needed", "-lgcc_s", "--no-as-needed", "-lc", "-lm"]
    command = ["ld", "-shared", "-nostdlib", "-o", str(tmp_path / "k.so"), f"-L{folder}", *asked]
    subprocess.run(command, check=True)
    monkeypatch.setattr(link_libraries, "_COMPILERS", (str(tmp_path),))
    (tmp_path / "x86_64-linux-gnu" / "14").mkdir(parents=True)
    (tmp_path / "x86_64-linux-gnu" / "14" / "libgcc.a").write_bytes(b"")
    assert link_libraries.search_path() is None
