"""What OpenVINO's scripts ask of a model, beyond what clinfer needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer.errors import InputError
from clinfer.ports import Port, WithOutputs

if TYPE_CHECKING:
    from clinfer.graph.ir import Graph
    from clinfer.ports import Node


class ModelWords(WithOutputs):
    """Base of `Model`: nodes of the graph by their parts in it, and notes about the model."""

    _graph: Graph
    _noted: dict[str, Any]
    friendly_name: str

    if TYPE_CHECKING:

        @property
        def inputs(self) -> tuple[Port, ...]: ...
        @property
        def outputs(self) -> tuple[Port, ...]: ...
        @property
        def metadata(self) -> Mapping[str, str]: ...

    @property
    def operators(self) -> list[Node]:
        """Parameters, operators in an order in which they can run, and results."""
        from clinfer.graph.nodes import nodes_of

        return nodes_of(self.inputs, self._graph, self.outputs)

    @property
    def parameters(self) -> list[Node]:
        """The nodes that the inputs belong to."""
        return [port.node for port in self.inputs]

    @property
    def results(self) -> list[Node]:
        """The nodes that the outputs belong to."""
        return [port.node for port in self.outputs]

    @property
    def sinks(self) -> list[Node]:
        """Nodes without outputs: an ONNX graph has none."""
        return []

    @property
    def variables(self) -> list[Node]:
        """State that outlives a run: an ONNX graph has none."""
        return []

    @property
    def result(self) -> Node:
        """The node of the only output. Raises `InputError` where there are several."""
        if len(self.outputs) != 1:
            raise InputError(f"the model has {len(self.outputs)} outputs: use output(name)")
        return self.output().node

    def get_result(self) -> Node:
        """As `result`."""
        return self.result

    def get_output_size(self) -> int:
        """The number of outputs."""
        return len(self.outputs)

    def get_output_op(self, index: int) -> Node:
        """The node of an output."""
        return self.output(index).node

    def get_parameter_index(self, parameter: Node) -> int:
        """The position of an input's node; -1 where it is not the model's."""
        return _position(parameter, self.parameters)

    def get_result_index(self, result: Node | Port) -> int:
        """The position of an output's node or port; -1 where it is not the model's."""
        found = result.node if isinstance(result, Port) else result
        return _position(found, self.results)

    def set_friendly_name(self, name: str) -> None:
        """Sets `friendly_name`."""
        self.friendly_name = str(name)

    @property
    def rt_info(self) -> dict[str, Any]:
        """What is noted about the model: its metadata under 'framework', and `set_rt_info`'s."""
        return {**({"framework": self.metadata} if self._graph.metadata else {}), **self._noted}

    def get_rt_info(self, path: str | Sequence[str] | None = None) -> Any:
        """All that is noted, or what is under a name or a path of names.

        Raises `InputError` where nothing is.
        """
        found: Any = self.rt_info
        for name in _path(path):
            if not isinstance(found, Mapping) or name not in found:
                raise InputError(f"nothing is noted under {path!r}; see has_rt_info()")
            found = found[name]
        return found

    def has_rt_info(self, path: str | Sequence[str]) -> bool:
        """Whether something is noted under a name or a path of names."""
        try:
            self.get_rt_info(path)
        except InputError:
            return False
        return True

    def set_rt_info(self, value: Any, path: str | Sequence[str]) -> None:
        """Notes something about the model, for `get_rt_info`; it changes nothing else."""
        *folders, name = _path(path) or [""]
        place = self._noted
        for folder in folders:
            below = place.setdefault(folder, {})
            if not isinstance(below, dict):
                raise InputError(f"{folder!r} holds a value: nothing can be noted below it")
            place = below
        place[name] = value

    def validate_nodes_and_infer_types(self) -> None:
        """Checks the graph and infers its types again. Raises `ModelError`, `ShapeError`."""
        from clinfer.graph.shapes import infer

        infer(self._graph.clone())


def _position(node: Node, among: Sequence[Node]) -> int:
    return next((index for index, other in enumerate(among) if other == node), -1)


def _path(path: str | Sequence[str] | None) -> list[str]:
    return [] if path is None else [path] if isinstance(path, str) else list(path)
