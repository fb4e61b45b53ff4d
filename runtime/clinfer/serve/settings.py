"""What a server is told: addresses, limits, who may ask, what is loaded."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinfer.errors import PropertyError


@dataclass(frozen=True)
class Settings:
    """Sizes in bytes, times in seconds; docs/server.md has the table. `grpc_port` None: no gRPC."""

    repository: Path
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    models: tuple[str, ...] = ()
    device: str = "AUTO"
    properties: Mapping[str, Any] = field(default_factory=dict)
    keep_going: bool = False
    control: bool | None = None
    api_key: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_body: int = 64 * 2**20
    max_header: int = 64 * 2**10
    max_queue: int = 128
    max_connections: int = 1024
    timeout: float = 60.0
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    drain: float = 30.0
    access_log: bool = False

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise PropertyError("TLS needs both a certificate and its key")
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise PropertyError("the API key is one line of printable ASCII")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def may_control(self) -> bool:
        """Whether clients may load and unload models: those on this machine, or with the key."""
        return self.is_local or bool(self.api_key) if self.control is None else self.control

    def tls(self) -> tuple[bytes, bytes] | None:
        """The key and the certificate chain, None without TLS. Raises `PropertyError`."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.tls_certificate, self.tls_key)
            return self.tls_key.read_bytes(), self.tls_certificate.read_bytes()
        except OSError as error:  # ssl.SSLError is one
            said = f"{self.tls_certificate}, {self.tls_key}: {error}"
            raise PropertyError(f"the TLS certificate and key cannot be used: {said}") from error
