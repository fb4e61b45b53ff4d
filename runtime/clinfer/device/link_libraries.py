"""What PoCL's linker asks for on a machine without a compiler.

PoCL has its clang link every kernel with `ld`, against libgcc, libgcc_s and libc. The files that
`-lgcc` and the like name belong to a compiler's packages; the libraries themselves are loaded in
this process. So where no compiler is installed - slim images of containers - build workers get a
folder of links to them, which clang's driver searches because LIBRARY_PATH names it. What stands in
libgcc.a alone no kernel needs: an empty archive stands for it.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from clinfer import forks
from clinfer.device import scratch
from clinfer.device.driver import loaded_libraries

VARIABLE = "LIBRARY_PATH"
_COMPILERS = ("/usr/lib/gcc", "/usr/lib64/gcc", "/usr/local/lib/gcc")
_LINKS = {"libc.so": "libc.so.6", "libgcc_s.so": "libgcc_s.so.1", "libm.so": "libm.so.6"}
_EMPTY_ARCHIVE = b"!<arch>\n"
_lock = forks.new_lock()


def search_path() -> str | None:
    """LIBRARY_PATH for a build worker; None where the linker finds what it asks for by itself."""
    if not sys.platform.startswith("linux") or _has_compiler():
        return None
    with _lock:
        return os.pathsep.join(filter(None, [os.environ.get(VARIABLE), str(_folder(os.getpid()))]))


def _has_compiler() -> bool:
    return any(True for place in _COMPILERS for _ in Path(place).glob("*/*/libgcc.a"))


@lru_cache(maxsize=1)
def _folder(_process: int) -> Path:
    folder = scratch.new_folder()
    (folder / "libgcc.a").write_bytes(_EMPTY_ARCHIVE)
    for name, library in _LINKS.items():
        found = [path for path in loaded_libraries(library) if path.name == library]
        if found:
            (folder / name).symlink_to(found[0])
    return folder
