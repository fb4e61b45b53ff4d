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
from clinfer.cli import pictures
from clinfer.cli.caches import cache_properties
from clinfer.cli.extensions import add_extensions, extension_argument
from clinfer.cli.output import progress_on_terminal
from clinfer.errors import ClinferError, InputError, PropertyError, listed

if TYPE_CHECKING:
    from clinfer.cache.policy import Trust
    from clinfer.core import Core
    from clinfer.device.lock import LockedDevice
    from clinfer.graph.model import Model
    from clinfer.lowering.plan import Plan
    from clinfer.ports import Port


def model_argument(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """MODEL, or MODEL... where `many`."""
    parser.add_argument(
        "model", nargs="+" if many else None, metavar="MODEL", help="an ONNX file", type=Path
    )
    extension_argument(parser)


def device_argument(parser: argparse.ArgumentParser, *more: str) -> None:
    """--device; `more` are other words for it."""
    text = "CPU, GPU, GPU.1 or AUTO (default)"
    parser.add_argument("--device", *more, default="AUTO", metavar="DEVICE", help=text)


def locked_device_argument(parser: argparse.ArgumentParser) -> None:
    """--device, also @FILE; --device-lock."""
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


def cpu_target_argument(parser: argparse.ArgumentParser) -> None:
    """--cpu-target A,B."""
    parser.add_argument(
        "--cpu-target",
        type=cpu_targets,
        default=[],
        metavar="TARGET,...",
        help="processors that CPU code is for, in place of this machine's: x86-64-v2, x86-64-v3, "
        "x86-64-v4 or LLVM's names; default: CLINFER_CPU_TARGET",
    )


def cpu_targets(text: str) -> list[str]:
    """Values of CPU_TARGET, separated by commas; raises argparse's error for an unknown one."""
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in config.CPU_TARGETS:
            known = ", ".join(config.CPU_TARGETS)
            raise argparse.ArgumentTypeError(f"expected one of {known}; found {name!r}")
    return names


def one_device(name: str) -> str:
    """The best device in place of AUTO: what is measured or compared runs on one."""
    from clinfer.device.discover import one_device

    return one_device(name)


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


def core(arguments: argparse.Namespace) -> Core:
    """A Core with the properties the arguments set."""
    from clinfer.core import Core

    made = Core()
    made.set_property(cache_properties(arguments))
    made.watch_builds(progress_on_terminal)
    add_extensions(made, getattr(arguments, "extension", []))
    if getattr(arguments, "store", None) is not None:
        made.set_property({"CACHE_STORE": arguments.store})
    return made


def check_output(argument: str, path: Path) -> None:
    """Raises `ClinferError` where no file can come to be, before there is anything to write."""
    if path.is_dir() or not path.name:
        raise ClinferError(f"{argument} {path}: is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ClinferError(f"{argument} {path}: the folder '{path.parent}' does not exist")


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

    NAME=FILE.jpg and other pictures become arrays too (`cli.pictures`). Of an .npz file with a NAME
    the array of that name is taken, or the only one. Arrays that are no inputs of the model
    ('label', say) are returned too. Raises `InputError` naming the argument.
    """
    arrays: dict[str, Any] = {}
    names = [port.name for port in ports]
    for text in files:
        name, equals, file = text.partition("=")
        if equals and name not in names:
            raise InputError(
                f"--input {text}: the model has no input '{name}'; it has {listed(names)}"
            )
        path = Path(file if equals else text)
        if pictures.is_picture(path):
            port = ports[names.index(name) if equals else pictures.only(text, names)]
            arrays[port.name] = pictures.load(path, port, text)
            continue
        content = _load(path, text)
        if equals:
            arrays[name] = _one_of(content, name, text)
        elif isinstance(content, Mapping):
            arrays.update(content)
        elif len(names) == 1:
            arrays[names[0]] = content
        else:
            raise InputError(
                f"--input {text}: say which input it is: NAME={text}; one of {listed(names)}"
            )
    return arrays


def _one_of(content: Any, name: str, argument: str) -> Any:
    """The array of that name, or the only one there is."""
    if not isinstance(content, Mapping):
        return content
    if name in content:
        return content[name]
    if len(content) == 1:
        return next(iter(content.values()))
    raise InputError(f"--input {argument}: no array '{name}' among {listed(sorted(content))}")


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


def inputs_for(
    ports: Sequence[Port], files: Sequence[str], plan: Plan | None = None
) -> dict[str, Any]:
    """An array for each port: from the files named (`read_inputs`), random for the rest.

    Sizes that nothing fixes are such that the plan accepts them; without one they are 1. Raises
    `InputError` as `read_inputs`, `random_inputs` and `clinfer.cli.sizes.fitting_sizes` do.
    """
    given = read_inputs(files, ports)
    missing = [port for port in ports if port.name not in given]
    sizes = named_sizes(ports, given)
    if missing and plan is not None:
        from clinfer.cli.sizes import fitting_sizes

        sizes = fitting_sizes(plan, ports, sizes)
    arrays = {**given, **random_inputs(missing, sizes)}
    return {port.name: arrays[port.name] for port in ports}


def planned(model: Model, device: str) -> Plan | None:
    """The model's plan, which says what free sizes may be; None where it has no free ones."""
    from clinfer.device.discover import open_device
    from clinfer.plugins.compiler import plan_model

    fixed = all(isinstance(size, int) for port in model.inputs for size in port.shape or ())
    return None if fixed else plan_model(model, open_device(device))


def random_inputs(ports: Sequence[Port], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Inputs to measure or try with: normal floats, small integers.

    Free sizes are those of `sizes`, else 1; one without a name is called 'INPUT.AXIS' there. Raises
    `InputError` for an input of unknown rank or without a numeric type.
    """
    from clinfer import dtypes

    generator = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for port in ports:
        if port.shape is None or port.dtype not in dtypes.DEVICE_DTYPES:
            raise InputError(f"input '{port.name}' ({port.dtype}) needs a value: use --input")
        names = [f"{port.name}.{axis}" if d is None else d for axis, d in enumerate(port.shape)]
        shape = [name if isinstance(name, int) else sizes.get(name, 1) for name in names]
        dtype = dtypes.to_numpy(port.dtype)
        if dtype.kind in "iub":
            made[port.name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            made[port.name] = generator.standard_normal(shape).astype(dtype)
    return made
