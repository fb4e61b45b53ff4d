"""Arguments and steps that several commands share."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import config
from clinfer.errors import ClinferError, InputError, PropertyError

if TYPE_CHECKING:
    from clinfer.cache.policy import Trust
    from clinfer.core import Core
    from clinfer.device.lock import LockedDevice
    from clinfer.graph.model import Model
    from clinfer.ports import Port


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


@contextmanager
def writing(argument: str, path: Path) -> Iterator[None]:
    """Around code that writes `path`; raises `ClinferError` naming the argument where it fails."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise ClinferError(f"{argument} {path}: cannot be written: {said}") from error


def positive_count(text: str) -> int:
    """A whole number from 1; raises argparse's error for anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def size_bytes(text: str) -> int:
    """Bytes from '512M' or '8G'; raises argparse's error for anything else."""
    try:
        return config.parse_size(text)
    except ValueError:
        message = f"expected bytes, say 512M or 8G, found {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def positive_seconds(text: str) -> float:
    """A finite number above 0; raises argparse's error for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text!r}")
    return seconds


def read_inputs(files: Sequence[str], ports: Sequence[Port]) -> dict[str, Any]:
    """Arrays from NAME=FILE.npy, NAME=FILE.npz and FILE.npz arguments, by the names in the files.

    Of an .npz file with a NAME the array of that name is taken, or the only one. Arrays that are
    no inputs of the model ('label', say) are returned too. Raises `InputError` naming the argument.
    """
    arrays: dict[str, Any] = {}
    names = [port.name for port in ports]
    for text in files:
        name, equals, file = text.partition("=")
        if equals and name not in names:
            raise InputError(f"--input {text}: the model has no input '{name}'; it has {names}")
        content = _load(Path(file if equals else text), text)
        if equals:
            arrays[name] = _one_of(content, name, text)
        elif isinstance(content, Mapping):
            arrays.update(content)
        elif len(names) == 1:
            arrays[names[0]] = content
        else:
            raise InputError(f"--input {text}: say which input it is: NAME={text}; one of {names}")
    return arrays


def _one_of(content: Any, name: str, argument: str) -> Any:
    """The array of that name, or the only one there is."""
    if not isinstance(content, Mapping):
        return content
    if name in content:
        return content[name]
    if len(content) == 1:
        return next(iter(content.values()))
    raise InputError(f"--input {argument}: no array '{name}' among {sorted(content)}")


def _load(path: Path, argument: str) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {_input_name(key): content[key] for key in content.files}
    except FileNotFoundError:
        raise InputError(f"--input {argument}: '{path}' does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"--input {argument}: '{path}' is not .npy or .npz: {said}") from error


def _input_name(key: str) -> str:
    return key[3:] if key.startswith("in:") else key


def named_sizes(ports: Sequence[Port], arrays: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that named dimensions have in these arrays."""
    given = [port for port in ports if port.name in arrays]
    pairs = (zip(p.shape or (), np.shape(arrays[p.name]), strict=False) for p in given)
    return {dim: size for shape in pairs for dim, size in shape if isinstance(dim, str)}


def inputs_for(ports: Sequence[Port], files: Sequence[str]) -> dict[str, Any]:
    """An array for each port: from the files named (`read_inputs`), random for the rest."""
    given = read_inputs(files, ports)
    missing = [port for port in ports if port.name not in given]
    arrays = {**given, **random_inputs(missing, named_sizes(ports, given))}
    return {port.name: arrays[port.name] for port in ports}


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
