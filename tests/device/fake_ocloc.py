"""A program that answers as Intel's ocloc 26.27 does, for products of architectures 20.1 and 20.4.

    python fake_ocloc.py LOG ARGUMENT...

Compilations are noted in LOG.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

DRIVER = "26.27.039122"


def answer(words, log):
    """What the program does; its exit code."""
    known = {"bmg": "20.1.0", "20.1.4": "20.1.4", "lnl": "20.4.4", "xe2": "20.1.0\n20.4.4"}
    if words[0] == "query":
        Path(words[1]).write_text(f"{DRIVER}\0")
    elif words[0] == "ids":
        if words[1] not in known:
            return 226
        print("Matched ids:\n" + known[words[1]])
    else:
        given = dict(zip(words[2::2], words[3::2], strict=False))
        with Path(log).open("a") as file:
            file.write(" ".join(words) + "\n")
        text = Path(given["-file"]).read_text()
        if "broken" in text:
            print("1:1:1: error: use of undeclared identifier 'broken'")
            return 245
        entry = text.split("void ")[-1].split("(")[0].strip()
        version = (20, 1, 0) if given["-device"] == "bmg" else (20, 1, 4)
        missing = "sub_group_sum" if "sub_group_sum" in text else ""
        made = zebin(entry, version, missing)
        (Path(given["-out_dir"]) / f"{given['-output']}.bin").write_bytes(made)
    return 0


def zebin(entry, version, missing=""):
    """A file as the driver's compiler makes it, with the sections that are read."""
    number = version[0] << 22 | version[1] << 14 | version[2]
    notes = struct.pack("<III8sI", 8, 4, 6, b"IntelGT\0", number)
    symbols = b"".join(
        struct.pack("<IBBHQQ", name, 0, 0, section, 0, 0)
        for name, section in ((0, 0), (1, 0), (1 + len("__INTEL_PATCH_X") + 1, 0))
    )
    texts = b"\0__INTEL_PATCH_X\0" + missing.encode() + b"\0"
    names = f"\0.text.{entry}\0.symtab\0.notes\0.strtab\0".encode()
    parts = [(0, 0, b"", 0)]
    for name, kind, content, link in (
        (f".text.{entry}", 1, b"code", 0),
        (".symtab", 2, symbols, 4),
        (".notes", 7, notes, 0),
        (".strtab", 3, texts, 0),
        ("", 3, names, 0),
    ):
        parts.append((names.index(f"{name}\0".encode()), kind, content, link))
    body, rows = b"", b""
    for name, kind, content, link in parts:
        rows += struct.pack(
            "<IIQQQQIIQQ", name, kind, 0, 0, 64 + len(body), len(content), link, 0, 0, 0
        )
        body += content
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        1,
        205,
        1,
        0,
        0,
        64 + len(body),
        0,
        64,
        0,
        0,
        64,
        len(parts),
        len(parts) - 1,
    )
    return head + body + rows


if __name__ == "__main__":
    sys.exit(answer(sys.argv[2:], sys.argv[1]))
