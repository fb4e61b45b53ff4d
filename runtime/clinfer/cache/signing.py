"""Ed25519 keys and signatures (RFC 8032), kept in PEM files that OpenSSL reads too.

A private key is an unencrypted PKCS #8 file of mode 0600, a public key a SubjectPublicKeyInfo file
beside it; a file may hold several public keys, so that keys can be exchanged without a gap. What is
signed starts with a line that says what it is, so that no signature serves for something else.

`cryptography` does the arithmetic and is loaded where a signature is made or checked.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.errors import CacheError, UntrustedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

INDEX_PURPOSE = b"clinfer pack index 1\n"
ENTRY_PURPOSE = b"clinfer entry 1\n"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
_MOST_FILE_BYTES = 65536
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class PublicKey:
    """A key that checks signatures; `raw` is its 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """How messages call the key: the first 16 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verifies(self, purpose: bytes, message: bytes, signature: bytes) -> bool:
        """Whether this key's owner signed `message` for that purpose."""
        ed25519 = _ed25519()
        from cryptography.exceptions import InvalidSignature

        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(
                signature, purpose + message
            )
        except (InvalidSignature, ValueError):
            return False
        return True

    def pem(self) -> bytes:
        """The key as a PEM file's content."""
        from cryptography.hazmat.primitives import serialization

        key = _ed25519().Ed25519PublicKey.from_public_bytes(self.raw)
        encoded: bytes = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return encoded


@dataclass(frozen=True)
class Signature:
    """A signature and the key that is said to have made it: nothing is known before `check`."""

    key: PublicKey
    value: bytes

    def encode(self) -> bytes:
        """32 bytes of the key, 64 of the signature."""
        return self.key.raw + self.value

    @classmethod
    def decode(cls, data: bytes) -> Signature:
        """From what `encode` gave."""
        return cls(PublicKey(data[:KEY_BYTES]), data[KEY_BYTES:])


SIGNED_BYTES = KEY_BYTES + SIGNATURE_BYTES


class SigningKey:
    """A private key. Its text never shows it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<signing key {self.public.id}>"

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the system's random numbers."""
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str | Path) -> SigningKey:
        """The key of a PEM file.

        Raises CacheError for a file that others can read, or that holds no such key.
        """
        data, mode = _read(Path(path))
        if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CacheError(
                f"the private key '{path}' is open to others (mode {stat.S_IMODE(mode):04o}): "
                "chmod 600, and make a new key if somebody may have read it"
            )
        ed25519 = _ed25519()
        from cryptography.hazmat.primitives import serialization

        try:
            private = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, _unsupported()) as error:
            raise CacheError(f"'{path}' holds no private key that can be read: {error}") from None
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise CacheError(f"'{path}' holds a key of another kind than Ed25519")
        return cls(private)

    def save(self, path: str | Path) -> Path:
        """Writes the private key to `path` and the public one to `path`.pub, which is returned.

        Raises CacheError where either exists or cannot be written.
        """
        from cryptography.hazmat.primitives import serialization

        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        private = Path(path)
        public = private.with_name(f"{private.name}.pub")
        if public.exists():
            raise CacheError(
                f"the key '{public}' exists, and none is replaced: choose another name"
            )
        _write_new(private, pem, 0o600)
        _write_new(public, self.public.pem(), 0o644)
        return public

    def sign(self, purpose: bytes, message: bytes) -> Signature:
        """Signs `message` for that purpose."""
        return Signature(self.public, self._private.sign(purpose + message))


def load_public_keys(paths: Iterable[str | Path]) -> tuple[PublicKey, ...]:
    """The public keys of PEM files, each once. Raises CacheError for a file without one."""
    found: dict[PublicKey, None] = {}
    for path in paths:
        data, _ = _read(Path(path))
        blocks = _PUBLIC.findall(data)
        if not blocks:
            raise CacheError(f"'{path}' holds no public key: expected PEM, say of FILE.pub")
        found.update(dict.fromkeys(_public_key(block, path) for block in blocks))
    return tuple(found)


def check(
    purpose: bytes, message: bytes, signatures: Iterable[Signature], keys: Iterable[PublicKey]
) -> tuple[PublicKey, ...]:
    """Which of the trusted `keys` signed `message`; signatures of other keys count for nothing.

    Raises UntrustedError where a trusted key's signature does not fit the message.
    """
    trusted = frozenset(keys)
    signers: dict[PublicKey, None] = {}
    for signature in signatures:
        if signature.key not in trusted:
            continue
        if not signature.key.verifies(purpose, message, signature.value):
            raise UntrustedError(
                f"the signature of key {signature.key.id} does not fit: what was signed has changed"
            )
        signers[signature.key] = None
    return tuple(signers)


def _public_key(block: bytes, path: str | Path) -> PublicKey:
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(block)
    except (ValueError, TypeError, _unsupported()) as error:
        raise CacheError(f"'{path}' holds no public key that can be read: {error}") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise CacheError(f"'{path}' holds a key of another kind than Ed25519")
    return PublicKey(key.public_bytes_raw())


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise CacheError(
            f"signatures need the package 'cryptography' ({error}): pip install 'clinfer[pack]'"
        ) from None
    return ed25519


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _read(path: Path) -> tuple[bytes, int]:
    """A key file's content and mode; links are followed, for mounted secrets are links."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_FILE_BYTES), os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CacheError(f"the key '{path}' cannot be read: {reason}") from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CacheError(
            f"the key '{path}' cannot be written, and none is replaced: {reason}"
        ) from None
