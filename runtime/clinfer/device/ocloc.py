"""Intel GPUs that neither are in the machine nor can be simulated: compiled for by Intel's ocloc.

`ocloc` is the driver's compiler as a program. Its binaries are those of the driver of the same
version, so a cache is filled for a driver that is the ocloc's twin. All that a key holds of the
device - name, driver, limits, extensions - comes from a lock file of the real one; ocloc says which
version it is of and which architectures a product has, and what it made says for which it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

from clinfer import config
from clinfer.device.lock import LockedDevice, read_lock
from clinfer.device.quirks import quirks_of
from clinfer.device.sources import SECONDS_PER_PROGRAM, SourceProgram, failed
from clinfer.device.workers import started, wait_for
from clinfer.device.zebin import Version, described, is_zebin
from clinfer.errors import BuildError, DeviceError, listed
from clinfer.log import Log
from clinfer.threads import executor

if TYPE_CHECKING:
    from clinfer.device.workers import Done, Wanted

_LOG = Log("clinfer.device")
_PRODUCT = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.MULTILINE)
_SECONDS = 60.0  # for a question that compiles nothing
_INSTALL = "install it (Debian: intel-ocloc), or name it with CLINFER_OCLOC"


@dataclass(frozen=True)
class Ocloc:
    """The program. Methods raise `DeviceError` where it does not start or does not answer."""

    path: Path

    @cached_property
    def driver_version(self) -> str:
        """The driver version that it is of, as that driver reports it."""
        with TemporaryDirectory(prefix="clinfer-ocloc-") as folder:
            said = self._said(["query", "OCL_DRIVER_VERSION"], Path(folder))
            try:
                text = (Path(folder) / "OCL_DRIVER_VERSION").read_text(encoding="utf-8")
            except OSError:
                raise DeviceError(f"{self.path} does not tell its driver version: {said}") from None
        return text.strip("\0 \n")

    def versions(self, product: str) -> tuple[Version, ...]:
        """The versions of the architectures that a name, or a version as text, stands for; ()."""
        with TemporaryDirectory(prefix="clinfer-ocloc-") as folder:
            said = self._said(["ids", product], Path(folder))
        if "Matched ids" not in said:
            return ()
        return tuple(_parsed(text) for text in _VERSION.findall(said.partition("ids")[2]))

    def command(self, source: Path, target: str, options: Sequence[str]) -> list[str]:
        """What compiles a file for a target to a file of its name beside it."""
        return [
            *(str(self.path), "compile", "-q", "-file", str(source), "-device", target),
            *("-options", " ".join(options), "-out_dir", str(source.parent)),
            *("-output", source.stem, "-output_no_suffix", "-exclude_ir"),
        ]

    def _said(self, arguments: Sequence[str], folder: Path) -> str:
        try:
            done = subprocess.run(
                [str(self.path), *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"{self.path} does not answer: {error}") from error
        return f"{done.stdout}{done.stderr}".strip()


def find() -> Ocloc | None:
    """The ocloc of CLINFER_OCLOC, else the one on PATH; None for none. Raises `DeviceError`."""
    named = config.OCLOC.get()
    if named is None:
        found = shutil.which("ocloc")
        return None if found is None else Ocloc(Path(found))
    found = shutil.which(named)
    if found is None:
        raise DeviceError(f"CLINFER_OCLOC={named!r} is no program that can be run")
    return Ocloc(Path(found).absolute())


@dataclass(frozen=True)
class OclocDevice(LockedDevice):
    """An Intel GPU of a lock file, with an ocloc that compiles for it.

    `product` is what the user calls it.
    """

    ocloc: Ocloc = field(kw_only=True)
    product: str = field(kw_only=True)

    def build(
        self,
        sources: Sequence[SourceProgram],
        jobs: int,
        progress: None,
        seconds: float,
        done: Done,
        wanted: Wanted,
    ) -> None:
        """As `workers.Pool.build`, a process of ocloc per program; `done` is told of each."""
        crew = _Crew()
        numbers = iter(range(len(sources)))
        lock = Lock()

        def taken() -> Iterator[int]:
            while not crew.is_stopped:
                with lock:
                    index = next(numbers, None)
                if index is None:
                    return
                yield index

        def work() -> None:
            for index in taken():
                if not wanted(index):
                    continue
                start = perf_counter()
                result = self.compile(sources[index], seconds, crew)
                if crew.is_stopped:
                    return
                done(index, result, perf_counter() - start)

        with executor(jobs, "clinfer-ocloc") as threads:
            try:
                wait_for(started(threads, work, jobs))
            except BaseException:
                crew.stop()
                raise

    def compile(
        self, source: SourceProgram, seconds: float = SECONDS_PER_PROGRAM, crew: _Crew | None = None
    ) -> bytes | BuildError:
        """The binary of a program, or what is wrong with it."""
        with TemporaryDirectory(prefix="clinfer-ocloc-") as name:
            file = Path(name) / "program.cl"
            file.write_text(source.source, encoding="utf-8")
            command = self.ocloc.command(file, self._target, source.all_options)
            try:
                code, said = (crew or _Crew()).run(command, Path(name), seconds)
            except subprocess.TimeoutExpired:
                return failed(source, "", f"ocloc was ended after {seconds:g} s")
            except OSError as error:
                return failed(source, "", f"ocloc does not start: {error}")
            made = [
                path for path in (file.with_suffix(".bin"), file.with_suffix("")) if path.is_file()
            ]
            # Its exit status alone does not tell: 0 has been seen beside code that is not valid.
            if code or not made or "INVALID opcode" in said:
                log = f"{said}\n{source.numbered()}"
                _LOG.info("kernel '%s' does not build:\n%s", source.entry, log)
                return failed(source, log)
            binary = made[0].read_bytes()
        fault = self._fault(source, binary)
        return failed(source, said, fault) if fault else binary

    @property
    def _target(self) -> str:
        """What ocloc is told: the device's own architecture, where its lock file has it."""
        return ".".join(map(str, self.info.ip_version)) or self.product

    def _fault(self, source: SourceProgram, binary: bytes) -> str:
        """What can be seen to be wrong with a binary; older formats show nothing."""
        if not is_zebin(binary):
            return ""
        try:
            made = described(binary)
        except ValueError as error:
            return f"ocloc made a file that cannot be read: {error}"
        if source.entry not in made.kernels:
            return f"ocloc made a binary of {listed(made.kernels) or 'no kernel'}"
        if made.unresolved:
            return f"the binary lacks {listed(made.unresolved)}"
        if self.info.ip_version and made.version != self.info.ip_version:
            return f"ocloc made code for {_text(made.version)}, not {_text(self.info.ip_version)}"
        return ""


class _Crew:
    """The processes that compile now; once stopped, they are killed and no other one starts."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._lock = Lock()
        self.is_stopped = False

    def run(self, command: Sequence[str], folder: Path, seconds: float) -> tuple[int, str]:
        """The exit status and what was printed. Raises `OSError`, `TimeoutExpired`."""
        with self._lock:
            if self.is_stopped:
                return -1, ""
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._running.append(process)
        try:
            said, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._running.remove(process)
        return process.returncode, said

    def stop(self) -> None:
        """Kills those that run."""
        with self._lock:
            self.is_stopped = True
            for process in self._running:
                process.kill()


def offline_device(product: str, lock: Path | None) -> OclocDevice:
    """The GPU of a lock file as a device of that product to compile for with ocloc.

    Raises `DeviceError` where there is no ocloc of the driver's version, it does not know the
    product, or the lock file has no GPU that can be one.
    """
    ocloc = find()
    asked = f"intel:{product}"
    if ocloc is None:
        raise DeviceError(f"{asked} is compiled for by ocloc, which is not found: {_INSTALL}")
    if not _PRODUCT.fullmatch(product) or not (versions := ocloc.versions(product)):
        raise DeviceError(f"{asked}: {ocloc.path} knows no product {product!r} ('ocloc compile')")
    if lock is None:
        raise DeviceError(
            f"{asked} cannot be simulated, so its name, limits and extensions are not known here: "
            "write them on the machine that has it, 'clinfer devices --device GPU --lock FILE', "
            "and give --device-lock FILE"
        )
    return _fitting(lock, ocloc, product, versions)


def _fitting(lock: Path, ocloc: Ocloc, product: str, versions: Sequence[Version]) -> OclocDevice:
    """The first GPU of the lock file that is Intel's, of the driver and of the product."""
    faults = []
    for device in read_lock(lock):
        info = device.info
        if not info.name.startswith("GPU"):
            continue
        if quirks_of(info.platform, info.platform_version).dialect != "intel":
            faults.append(f"{info.full_name} is not of Intel's GPU driver")
        elif info.driver_version != ocloc.driver_version:
            faults.append(
                f"{info.full_name} has driver {info.driver_version}, {ocloc.path} is of "
                f"{ocloc.driver_version}: take the ocloc of the driver's package (CLINFER_OCLOC)"
            )
        elif info.ip_version and info.ip_version[:2] not in {found[:2] for found in versions}:
            faults.append(
                f"{info.full_name} is of architecture {_text(info.ip_version)}, {product} of "
                f"{listed([_text(v) for v in versions])}"
            )
        elif info.ip_version and not ocloc.versions(_text(info.ip_version)):
            faults.append(f"{ocloc.path} does not know architecture {_text(info.ip_version)}")
        elif not info.ip_version and len(versions) > 1:
            faults.append(
                f"which of {product}'s architectures ({listed([_text(v) for v in versions])}) "
                f"{info.full_name} has is not in '{lock}': name the product more exactly"
            )
        else:
            return OclocDevice(info, ocloc=ocloc, product=product)
    raise DeviceError(f"intel:{product}: {'; '.join(faults) or f'there is no GPU in {lock}'}")


def _parsed(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


def _text(version: Version) -> str:
    return ".".join(map(str, version))
