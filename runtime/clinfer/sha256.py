"""SHA-256 for keys and other short texts, from the interpreter itself where it has it.

`hashlib` loads OpenSSL, a tenth of what clinfer's own part of a warm start takes; Python's `random`
avoids it in the same way. OpenSSL is five times as fast, so long data is for `hashlib`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # Python 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = ["sha256"]
