"""A kernel's parameters in OpenCL C next to the arguments bound to them, always in one order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clinfer_kernels.dims import Dim
from clinfer_kernels.memory import parameter as buffer_parameter
from clinfer_kernels.spec import Arg


@dataclass
class Signature:
    """Grows by one parameter a call; `text` and `args` are what a `Launch` needs."""

    _parameters: list[str] = field(default_factory=list)
    _args: list[Arg] = field(default_factory=list)

    def buffer(self, kind: str, index: int, dtype: str, name: str) -> None:
        """A buffer parameter; `kind` as in `Arg`. Inputs are const."""
        self._parameters.append(buffer_parameter(dtype, name, written=kind != "in"))
        self._args.append(Arg(kind, index))

    def read(self, kind: str, index: int, dtype: str, name: str) -> None:
        """A buffer parameter that is only read, whatever its kind."""
        self._parameters.append(buffer_parameter(dtype, name))
        self._args.append(Arg(kind, index))

    def scalar(self, name: str, value: Dim, ctype: str = "int") -> None:
        """A size, stride or offset."""
        self._parameters.append(f"const {ctype} {name}")
        self._args.append(Arg("scalar", value=value, ctype=ctype))

    def local(self, ctype: str, name: str, nbytes: Dim) -> None:
        """Local memory of `nbytes` bytes, as elements of a C type."""
        self._parameters.append(f"__local {ctype}* restrict {name}")
        self._args.append(Arg("local", value=nbytes))

    def status(self) -> None:
        """Where positions outside their axes are reported: `clinfer_kernels.positions`."""
        self._parameters += ["__global long* status", "const int slot"]
        self._args += [Arg("status"), Arg("slot")]

    def share(self, pairs: Iterable[tuple[str, str]]) -> None:
        """States that the buffers of each pair may be one: neither of them is `restrict`."""
        alone = {f" restrict {name}": f" {name}" for pair in pairs for name in pair}
        for number, parameter in enumerate(self._parameters):
            for ending, plain in alone.items():
                if parameter.startswith("__global ") and parameter.endswith(ending):
                    self._parameters[number] = parameter.removesuffix(ending) + plain

    @property
    def text(self) -> str:
        """The parameters, one a line, indented."""
        return ",\n".join(f"        {p}" for p in self._parameters)

    @property
    def args(self) -> tuple[Arg, ...]:
        return tuple(self._args)
