"""Whom to believe: which keys' signatures count, and what may be taken without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clinfer import config
from clinfer.cache import serials
from clinfer.cache.index import LIMITS, Index, Limits
from clinfer.cache.sealed import Sealed
from clinfer.cache.signing import (
    ENTRY_PURPOSE,
    INDEX_PURPOSE,
    PublicKey,
    Signature,
    check,
    load_public_keys,
)
from clinfer.errors import UntrustedError


@dataclass(frozen=True)
class Trust:
    """Keys whose signatures count. Loading a binary is running code, so without them nothing from
    elsewhere is taken, unless `allow_unsigned` waives that.

    `serial_file` remembers accepted serials (None: none are); `allow_older` also takes a pack older
    than one accepted before.
    """

    keys: tuple[PublicKey, ...] = ()
    allow_unsigned: bool = False
    allow_older: bool = False
    serial_file: Path | None = None

    @classmethod
    def load(
        cls,
        keys: Iterable[str | Path] = (),
        *,
        allow_unsigned: bool | None = None,
        allow_older: bool = False,
    ) -> Trust:
        """The keys in these files and those CLINFER_TRUST names.

        `allow_unsigned` None: as CLINFER_ALLOW_UNSIGNED says. Raises CacheError for a file that
        holds no key.
        """
        files = [*keys, *config.TRUST.get()]
        waived = config.ALLOW_UNSIGNED.get() if allow_unsigned is None else allow_unsigned
        return cls(load_public_keys(files), waived, allow_older, serials.default_file())

    @classmethod
    def waived(cls) -> Trust:
        """For looking at a pack without using anything it holds."""
        return cls(allow_unsigned=True, allow_older=True)

    def open_index(
        self, sealed: Sealed, limits: Limits = LIMITS
    ) -> tuple[Index, tuple[PublicKey, ...]]:
        """A pack's index, and the trusted keys that signed it (none where that is waived).

        Raises UntrustedError: unsigned, signed by keys that are not trusted, changed after it was
        signed, older than one accepted before; CacheError where it cannot be read.
        """
        signers = self.signers("the pack", INDEX_PURPOSE, sealed.index, sealed.signatures)
        index = Index.parse(sealed.index, limits)
        if self.serial_file is not None and not self.allow_older:
            serials.check(self.serial_file, index.name, index.serial, sealed.digest, signers)
        return index, signers

    def remember(self, index: Index, sealed: Sealed, signers: Iterable[PublicKey]) -> None:
        """Notes that a pack was accepted. Raises CacheError where that cannot be written."""
        if self.serial_file is not None and not self.allow_older:
            keys = tuple(signers)
            if keys:
                serials.remember(self.serial_file, index.name, index.serial, sealed.digest, keys)

    def check_entry(self, content: str, signatures: Iterable[Signature]) -> None:
        """Raises UntrustedError unless an entry of that content is signed as `open_index` asks."""
        self.signers("the entry", ENTRY_PURPOSE, bytes.fromhex(content), signatures)

    def signers(
        self, what: str, purpose: bytes, message: bytes, signatures: Iterable[Signature]
    ) -> tuple[PublicKey, ...]:
        """The trusted keys that signed a message; none only where that is waived."""
        given = tuple(signatures)
        signers = check(purpose, message, given, self.keys)
        if signers or self.allow_unsigned:
            return signers
        if not given:
            raise UntrustedError(
                f"{what} is not signed. Use one that is, or, if you know where it comes from, "
                "--allow-unsigned (CLINFER_ALLOW_UNSIGNED=1)"
            )
        found = ", ".join(signature.key.id for signature in given)
        known = ", ".join(key.id for key in self.keys)
        raise UntrustedError(
            f"{what} is signed by key {found}; trusted here: {known or 'none'}. Name the public "
            "key with --trust FILE or CLINFER_TRUST, if you know whose it is"
        )
