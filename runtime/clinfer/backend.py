"""`onnx.backend.base` over clinfer: for onnx's own test runner, and programs that use backends.

import clinfer.backend as backend
outputs = backend.prepare(model, "CPU").run([image])
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, defs, helper
from onnx.backend import base

from clinfer.core import Core
from clinfer.dtypes import BY_NAME
from clinfer.errors import DeviceError, InputError

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel


@lru_cache(maxsize=1)
def _core() -> Core:
    return Core()


class BackendRep(base.BackendRep):
    """A model that is ready to run; `compiled` is clinfer's."""

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in order, by position and by name; inputs in order, or by name.

        Raises clinfer's errors, as `CompiledModel` does; `InputError` for an unknown option.
        """
        _no_options(kwargs)
        if isinstance(inputs, (list, tuple)):
            inputs = dict(enumerate(inputs))  # also where the only input is a sequence
        results = self.compiled(inputs)
        return _named_outputs(results.names(), results.to_tuple())


class Backend(base.Backend):
    """Runs models and nodes on clinfer's devices, which are named as in `Core`, or 'CPU:0'."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be read: all its operators are known."""
        from clinfer.errors import ModelError, ShapeError, UnsupportedError

        try:
            _core().read_model(model)
        except (ModelError, ShapeError, UnsupportedError):
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """The model, a ModelProto, path or bytes, compiled; `kwargs` are properties."""
        return BackendRep(_core().compile_model(model, _device(device), kwargs))

    @classmethod
    def run_model(
        cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """The outputs of a model for inputs."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """The outputs of one node for inputs in order, in the newest operator set.

        `opset_version` among `kwargs` names another; the rest are properties.
        """
        version = kwargs.pop("opset_version", None) or defs.onnx_opset_version()
        names = list(dict.fromkeys(name for name in node.input if name))
        arrays = [np.asarray(value) for value in inputs]
        if len(arrays) != len(names):
            raise InputError(f"{len(arrays)} inputs given; the node has {len(names)}: {names}")
        types = [
            helper.make_tensor_value_info(n, _element(a), a.shape)
            for n, a in zip(names, arrays, strict=True)
        ]
        outputs = [helper.make_value_info(name, TypeProto()) for name in node.output if name]
        graph = helper.make_graph([node], node.op_type, types, outputs)
        domain = helper.make_opsetid(node.domain, 1 if node.domain else version)
        model = helper.make_model(graph, opset_imports=[domain])
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether there is such a device."""
        try:
            _core().get_property(_device(device), "FULL_DEVICE_NAME")
        except DeviceError:
            return False
        return True


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device


def _device(name: str) -> str:
    """clinfer's name of a device that may be numbered as onnx does: 'CPU:0' is the first one."""
    kind, _, number = name.partition(":")
    if not number or not number.isdigit():
        return name
    return kind if number == "0" else f"{kind}.{number}"


def _element(array: np.ndarray[Any, Any]) -> int:
    if array.dtype.kind in "OUS":
        return BY_NAME["string"].onnx
    entry = BY_NAME.get(array.dtype.name)
    if entry is None:
        raise InputError(f"tensors have no elements of {array.dtype}")
    return entry.onnx


def _named_outputs(names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    found: tuple[Any, ...] = base.namedtupledict("Outputs", list(names))(*values)
    return found


def _no_options(options: dict[str, Any]) -> None:
    if options:
        raise InputError(f"run takes no options, found {', '.join(options)}")
