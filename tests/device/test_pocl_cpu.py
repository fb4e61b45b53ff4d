"""The processor's name in PoCL's device structure; here a structure of our own."""

from __future__ import annotations

import ctypes
import mmap
import sys
from platform import machine

import pytest

from clinfer.device import pocl_cpu, processor

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or machine() != "x86_64", reason="for x86-64 Linux"
)
V3 = frozenset(
    ("cx16", "popcnt", "ssse3", "sse4_1", "sse4_2", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma")
) | {"movbe", "vaes", "sha_ni"}
V4 = V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])


class Structure:
    """4096 bytes of pointers, one of them to a text on the heap."""

    def __init__(self, name: bytes) -> None:
        self.text = ctypes.create_string_buffer(name, 256)
        self.words = (ctypes.c_uint64 * 512)()
        self.words[7] = 1  # not a pointer
        self.words[40] = ctypes.addressof(self.text)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.words)


@pytest.mark.parametrize(
    ("host", "flags", "library", "expected"),
    [
        (b"generic", V4, False, "skx"),
        (b"generic", V3, False, "znver3"),
        (b"generic", V3 - {"vaes"}, False, "haswell"),
        (b"generic", frozenset({"sse4_2"}), False, "nehalem"),
        (b"generic", frozenset(), False, "generic"),
        (b"znver3", V4, True, "skx"),
        (b"znver3", V4, False, "znver3"),  # the library is named after the processor
        (b"znver3", V3, True, "znver3"),
        (b"skylake-avx512", V4, True, "skylake-avx512"),
    ],
)
def test_names_are_corrected_to_what_the_processor_has(host, flags, library, expected, monkeypatch):
    monkeypatch.setattr(processor, "flags", lambda: flags)
    monkeypatch.setattr(pocl_cpu, "_llvm_host", lambda: host)
    monkeypatch.setattr(pocl_cpu, "_has_library_for_avx512", lambda: library)
    structure = Structure(host)
    assert pocl_cpu.name_a_known_processor(structure.address) == expected
    assert structure.text.value.decode() == expected
    assert pocl_cpu.name_a_known_processor(structure.address) == expected  # and stays


def test_a_name_in_memory_that_cannot_be_written_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr(processor, "flags", lambda: V4)
    monkeypatch.setattr(pocl_cpu, "_llvm_host", lambda: b"generic")
    for name, expected in ((b"skylake-avx512", "skylake-avx512"), (b"generic", "generic")):
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[: len(name)] = name
            structure = Structure(b"")
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            structure.words[40] = address
            protect = ctypes.CDLL(None).mprotect
            protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            assert protect(address, mmap.PAGESIZE, mmap.PROT_READ) == 0
            assert pocl_cpu.name_a_known_processor(structure.address) == expected


def test_another_text_is_left_alone(monkeypatch):
    monkeypatch.setattr(pocl_cpu, "_llvm_host", lambda: b"generic")
    structure = Structure(b"generically")
    assert pocl_cpu.name_a_known_processor(structure.address) is None
    assert structure.text.value == b"generically"


@pytest.mark.parametrize(
    ("flags", "text", "lanes"),
    [
        (V4 | {"avx512_vnni", "rapl"}, "x86-64-v4+avx512_vnni", 16),
        (V3, "x86-64-v3", 8),
        (frozenset(["cx16", "popcnt", "ssse3", "sse4_1", "sse4_2"]), "x86-64-v2", 4),
    ],
)
def test_what_machine_code_needs(flags, text, lanes, monkeypatch):
    monkeypatch.setattr(processor, "flags", lambda: flags)
    assert processor.instruction_set() == text
    assert processor.float_lanes() == lanes
