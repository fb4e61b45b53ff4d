"""What this process has loaded, drivers among it."""

from __future__ import annotations

from pathlib import Path


def loaded_libraries(name: str) -> list[Path]:
    """The shared objects in this process whose paths hold that name; none but on Linux."""
    found = {line.rpartition(" ")[2] for line in memory_map() if name in line}
    return [Path(path) for path in sorted(found)]


def memory_map() -> list[str]:
    """The lines of /proc/self/maps; none where there is no such file."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()
