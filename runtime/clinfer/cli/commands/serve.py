"""`clinfer serve`: a folder of models over REST and gRPC, until it is terminated."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer import config
from clinfer.cli import common
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.extensions import extension_argument
from clinfer.cli.output import emit_json, table
from clinfer.errors import ClinferError, PropertyError

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.serve.server import Server
    from clinfer.serve.settings import Settings

# Options that are a field of `Settings` with a value: what they take, and what they say.
_LIMITS: dict[str, tuple[Any, str]] = {
    "max_body": (common.size_bytes, "bytes of a request, say 64M (default)"),
    "max_queue": (common.positive_count, "requests that may wait for a model (128)"),
    "max_connections": (common.positive_count, "connections, and calls of gRPC, at a time (1024)"),
    "timeout": (common.positive_seconds, "seconds until a request is given up (60)"),
    "body_timeout": (common.positive_seconds, "seconds for a body to arrive (30)"),
    "header_timeout": (common.positive_seconds, "seconds for the head of a request (10)"),
    "drain": (common.positive_seconds, "seconds for what is under way at the end (30)"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """REPOSITORY --host --port --grpc-port --model --device --cache-dir --cache-only ..."""
    parser.epilog = "CLINFER_SERVE_API_KEY: a key that clients must give; see docs/server.md"
    parser.add_argument(
        "repository", type=Path, metavar="REPOSITORY", help="a folder with NAME/VERSION/model.onnx"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address (default: this machine's)")
    parser.add_argument("--port", type=_port, default=8000, help="of REST (8000); 0: any")
    parser.add_argument("--grpc-port", type=_port, default=8001, help="of gRPC (8001); 0: any")
    parser.add_argument("--no-grpc", action="store_true", help="REST alone")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="loads these at the start, repeatable (default: all)",
    )
    common.device_argument(parser)
    remembering_arguments(parser)
    common.store_argument(parser)
    extension_argument(parser)
    parser.add_argument(
        "--cache-only",
        action="store_true",
        help="compile nothing: what the cache lacks is an error",
    )
    parser.add_argument(
        "--warm", action="store_true", help="load all models into the cache, and end"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="serve, although some models do not load"
    )
    parser.add_argument(
        "--control",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether clients load and unload models (auto: on this machine, or with a key)",
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file with the API key")
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="serve TLS with it")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    for name, (kind, text) in _LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    parser.add_argument("--access-log", action="store_true", help="log every request")


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C, then drains; exit code 0 then."""
    try:
        from clinfer.serve.logs import to_stderr
        from clinfer.serve.server import Server
    except ImportError as error:
        raise ClinferError(
            f"clinfer serve needs the extra 'serve': pip install clinfer[serve] ({error})"
        ) from error
    core = common.core(options)
    if options.cache_only:
        core.set_property({"CACHE_MODE": "cache-only"})
    settings = _settings(options)
    if options.warm:
        return _warm(core, settings, options.json)
    to_stderr()
    Server(settings, core).run(lambda server: _tell(server, options.json))
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    from clinfer.serve.settings import Settings

    limits = {name: getattr(options, name) for name in _LIMITS}
    return Settings(
        repository=options.repository,
        host=options.host,
        port=options.port,
        grpc_port=None if options.no_grpc else options.grpc_port,
        models=tuple(options.model),
        device=options.device,
        keep_going=options.keep_going,
        control=None if options.control == "auto" else options.control == "on",
        api_key=_key(options.api_key_file),
        tls_certificate=options.tls_certificate,
        tls_key=options.tls_key,
        access_log=options.access_log,
        **{name: value for name, value in limits.items() if value is not None},
    )


def _key(file: Path | None) -> str:
    """The API key; arguments would show it to who lists processes."""
    if file is None:
        return config.SERVE_API_KEY.get() or ""
    try:
        key = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise PropertyError(f"--api-key-file {file}: cannot be read: {error}") from error
    if not key:
        raise PropertyError(f"--api-key-file {file}: is empty")
    return key


def _warm(core: Core, settings: Settings, as_json: bool) -> int:
    from clinfer.serve.loading import load
    from clinfer.serve.repository import Repository

    repository, rows = Repository(settings.repository), []
    for name in settings.models or repository.names():
        chosen = repository.config(name)
        for number, path in repository.files(name, chosen).items():
            loaded = load(core, path, chosen, settings.device)
            built = sum(model.programs_built for model in loaded.compiled)
            row = {"model": name, "version": number, "programs built": built}
            rows.append({**row, "seconds": loaded.seconds})
    if as_json:
        emit_json([{key.replace(" ", "_"): row[key] for key in row} for row in rows])
    else:
        table(rows, ["model", "version", "programs built", "seconds"])
    return 0


def _tell(server: Server, as_json: bool) -> None:
    host, ports = server.settings.host, {"port": server.port, "grpc_port": server.grpc_port}
    if as_json:
        emit_json({"host": host, **ports})
    else:
        scheme = "http" if server.settings.tls_certificate is None else "https"
        shown = f"[{host}]" if ":" in host else host
        calls = "" if server.grpc_port is None else f", gRPC on port {server.grpc_port}"
        print(f"serving {server.settings.repository} on {scheme}://{shown}:{server.port}{calls}")
    import sys

    sys.stdout.flush()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, found {text!r}")
    return int(text)
