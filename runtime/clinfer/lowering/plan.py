"""The plan: what a device has to do for one inference, as plain data without code.

    Plan
      inputs, outputs    ports: name, dtype, shape, buffer
      buffers            every tensor's storage: kind, dtype, size, lifetime
      programs           distinct OpenCL sources
      steps              launches and host steps, in order
      constants          packed weights, one array per 'const' buffer

Sizes may be expressions over symbols; binding input shapes gives their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.sha256 import sha256
from clinfer_kernels import dims as dim_algebra
from clinfer_kernels.dims import Dim
from clinfer_kernels.player import ENTRY
from clinfer_kernels.spec import Tensor

Array = np.ndarray[Any, Any]


class PlanPort(NamedTuple):
    """An input or output of the model. `shape` is None for host objects of unknown rank."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    buffer: int
    labels: tuple[str | None, ...] = ()


class Buffer(NamedTuple):
    """Storage for one tensor.

    kind: 'input' | 'output' | 'temp' (in the arena) | 'const' (`constant` indexes the plan's
    constants) | 'sizes' (`content` holds sizes, written when shapes are bound) | 'host' (a Python
    object, never on the device). `size` counts elements; `first` and `last` are the steps that
    write and last read it.
    """

    kind: str
    dtype: str
    size: Dim
    constant: int = -1
    content: tuple[Dim, ...] = ()
    first: int = -1
    last: int = -1

    def nbytes(self, sizes: Callable[[Dim], int]) -> int:
        """Bytes, given the values of sizes."""
        return sizes(self.size) * dtypes.size_of(self.dtype)


@dataclass(frozen=True)
class Program:
    """One OpenCL source text with its build options; `entry` is its kernel's name.

    `local_size` is the size of the work-groups its kernel is always launched with.
    """

    entry: str
    source: str
    options: str
    local_size: tuple[int, ...] = (1,)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source and the options, in hex."""
        return sha256(f"{self.options}\0{self.source}".encode()).hexdigest()


class PlanArg(NamedTuple):
    """kind 'buffer' (`buffer` is an index), 'scalar' (`value`, as C type `ctype`) or 'local'."""

    kind: str
    buffer: int = -1
    value: Dim = 0
    ctype: str = "int"


class LaunchStep(NamedTuple):
    """One kernel launch. `label` names the graph nodes it computes, for people.

    `problem` is the digest by which tuning data know it; a stored plan does not keep it.
    """

    program: int
    args: tuple[PlanArg, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...]
    label: str
    flops: Dim = 0
    writes: tuple[int, ...] = ()
    problem: str = ""

    @property
    def is_playable(self) -> bool:
        """Whether the player can call its kernel: one work-item a group."""
        return prod(self.local_size) == 1


class HostValue(NamedTuple):
    """A host step's operand or result: a buffer read through a view, or a host object."""

    buffer: int
    tensor: Tensor | None


class HostStep(NamedTuple):
    """One operator run by the reference implementation; `op` is `HostOp`'s plain data."""

    op: Mapping[str, Any]
    inputs: tuple[HostValue | None, ...]
    outputs: tuple[HostValue | None, ...]
    label: str
    reason: str


Step = LaunchStep | HostStep


def touched(step: Step) -> list[int]:
    """The buffers that a step reads or writes."""
    if isinstance(step, LaunchStep):
        return [arg.buffer for arg in step.args if arg.kind == "buffer"]
    values = (*step.inputs, *step.outputs)
    return [value.buffer for value in values if value is not None]


class Constraint(NamedTuple):
    """Two sizes that must be equal when shapes are bound; `message` names who says so."""

    left: Dim
    right: Dim
    message: str


@dataclass(frozen=True)
class Plan:
    """See the module's text."""

    inputs: tuple[PlanPort, ...]
    outputs: tuple[PlanPort, ...]
    buffers: tuple[Buffer, ...]
    programs: tuple[Program, ...]
    steps: tuple[Step, ...]
    constants: tuple[Array, ...] = field(repr=False)
    constraints: tuple[Constraint, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def launches(self) -> Iterator[LaunchStep]:
        return (step for step in self.steps if isinstance(step, LaunchStep))

    @cached_property
    def player(self) -> int | None:
        """The program that can run all launches of the plan, where it has one."""
        return next((i for i, p in enumerate(self.programs) if p.entry == ENTRY), None)

    @property
    def host_steps(self) -> Iterator[HostStep]:
        return (step for step in self.steps if isinstance(step, HostStep))

    @cached_property
    def input_symbols(self) -> frozenset[str]:
        """Symbols bound by the inputs' shapes."""
        names: set[str] = set()
        for port in self.inputs:
            for dim in port.shape or ():
                names |= dim_algebra.symbols(dim)
        return frozenset(names)

    @cached_property
    def has_late_symbols(self) -> bool:
        """Whether some sizes are known only after a host step has run."""
        for step in self.host_steps:
            for value in step.outputs:
                if value is None or value.tensor is None:
                    continue
                for dim in value.tensor.shape:
                    if not dim_algebra.symbols(dim) <= self.input_symbols:
                        return True
        return False
