"""Arguments and steps that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.errors import InputError, PropertyError

if TYPE_CHECKING:
    from clinfer.cache.policy import Trust
    from clinfer.core import Core
    from clinfer.device.lock import LockedDevice
    from clinfer.graph.model import Model, Port


def model_argument(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """MODEL, or MODEL... where `many`."""
    parser.add_argument(
        "model", nargs="+" if many else None, metavar="MODEL", help="an ONNX file", type=Path
    )


def device_argument(parser: argparse.ArgumentParser) -> None:
    """--device, --cache-dir."""
    parser.add_argument("--device", default="AUTO", help="CPU, GPU, GPU.1 or AUTO (default)")
    parser.add_argument("--cache-dir", default=None, metavar="DIR", help="CACHE_DIR to use")


def locked_device_argument(parser: argparse.ArgumentParser) -> None:
    """--device, also @FILE; --device-lock, --cache-dir."""
    parser.add_argument(
        "--device",
        default="AUTO",
        metavar="DEVICE",
        help="CPU, GPU, GPU.1, AUTO (default), or @FILE: the device of a lock file",
    )
    parser.add_argument(
        "--device-lock",
        type=Path,
        metavar="FILE",
        help="the file of 'clinfer devices --lock' in which --device is looked up",
    )
    parser.add_argument("--cache-dir", default=None, metavar="DIR", help="CACHE_DIR to use")


def locked_device(arguments: argparse.Namespace) -> LockedDevice | None:
    """The device of the lock file that the arguments name; None where they name none."""
    from clinfer.device.lock import PREFIX, locked_device

    name: str = arguments.device
    file: Path | None = arguments.device_lock
    if name.startswith(PREFIX):
        if file is not None:
            raise PropertyError(f"--device {name} and --device-lock {file}: give one of them")
        return locked_device(Path(name[len(PREFIX) :]))
    return None if file is None else locked_device(file, name)


def store_argument(parser: argparse.ArgumentParser) -> None:
    """--store."""
    parser.add_argument(
        "--store",
        metavar="URL",
        help="a remote store to fetch from and push to, say s3://bucket/dir",
    )


def trust_arguments(parser: argparse.ArgumentParser) -> None:
    """--trust, --allow-unsigned, --allow-older."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PUBKEY",
        help="a file with public keys whose signatures count, repeatable; also CLINFER_TRUST",
    )
    parser.add_argument(
        "--allow-unsigned", action="store_true", help="also take what no trusted key has signed"
    )
    parser.add_argument(
        "--allow-older", action="store_true", help="also take a pack older than one taken before"
    )


def trust(arguments: argparse.Namespace) -> Trust:
    """Whom `trust_arguments` and the environment say to believe."""
    from clinfer.cache.policy import Trust

    return Trust.load(
        arguments.trust,
        allow_unsigned=arguments.allow_unsigned or None,
        allow_older=arguments.allow_older,
    )


def shape_argument(parser: argparse.ArgumentParser) -> None:
    """--shape NAME=1x128, repeatable."""
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=1x128",
        type=parse_shape,
        help="fixes an input's shape; '?' or a name keeps a dimension dynamic",
    )


def parse_shape(text: str) -> tuple[str, list[int | str | None]]:
    """'ids=1x128' -> ('ids', [1, 128]); raises argparse's error for another form."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name or not sizes:
        raise argparse.ArgumentTypeError(f"expected NAME=1x128, found {text!r}")
    return name, [_size(part) for part in sizes.split("x")]


def _size(part: str) -> int | str | None:
    if part == "?":
        return None
    if part.isdigit():
        return int(part)
    if part.isidentifier():
        return part
    raise argparse.ArgumentTypeError(f"not a size: {part!r}")


def core(arguments: argparse.Namespace) -> Core:
    """A Core with the properties the arguments set."""
    from clinfer.core import Core

    made = Core()
    if getattr(arguments, "cache_dir", None) is not None:
        made.set_property({"CACHE_DIR": arguments.cache_dir})
    if getattr(arguments, "store", None) is not None:
        made.set_property({"CACHE_STORE": arguments.store})
    return made


def reshaped(made: Core, path: Path, shapes: Sequence[tuple[str, Any]]) -> Model | Path:
    """The path where no shapes are given (a warm start then parses nothing), else the model."""
    if not shapes:
        return path
    model = made.read_model(path)
    model.reshape(dict(shapes))
    return model


def read_inputs(files: Sequence[str], ports: Sequence[Port]) -> dict[str, Any]:
    """Arrays from NAME=FILE.npy and FILE.npz arguments; raises `InputError` naming the argument.

    Arrays of an .npz file that are no inputs of the model ('label', say) are returned too.
    """
    arrays: dict[str, Any] = {}
    names = [port.name for port in ports]
    for text in files:
        name, equals, file = text.partition("=")
        if equals and name not in names:
            raise InputError(f"--input {text}: the model has no input '{name}'; it has {names}")
        path = Path(file if equals else text)
        content = _load(path, text)
        if isinstance(content, Mapping):
            arrays.update(content)
        elif equals:
            arrays[name] = content
        elif len(names) == 1:
            arrays[names[0]] = content
        else:
            raise InputError(f"--input {text}: say which input it is: NAME={text}; one of {names}")
    return arrays


def _load(path: Path, argument: str) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"--input {argument}: '{path}' does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--input {argument}: '{path}' is not .npy or .npz: {error}") from error
    if isinstance(content, np.ndarray):
        return content
    with content:
        return {_input_name(key): content[key] for key in content.files}


def _input_name(key: str) -> str:
    return key[3:] if key.startswith("in:") else key


def random_inputs(ports: Sequence[Port], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Inputs to measure or try with: normal floats, small integers; named sizes as `sizes`, else 1.

    Raises `InputError` for an input of unknown rank or without a numeric type.
    """
    from clinfer import dtypes

    generator = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for port in ports:
        if port.shape is None or port.dtype not in dtypes.DEVICE_DTYPES:
            raise InputError(f"input '{port.name}' ({port.dtype}) needs a value: use --input")
        shape = [d if isinstance(d, int) else sizes.get(str(d), 1) for d in port.shape]
        dtype = dtypes.to_numpy(port.dtype)
        if dtype.kind in "iub":
            made[port.name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            made[port.name] = generator.standard_normal(shape).astype(dtype)
    return made
