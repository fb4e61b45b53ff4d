"""`RuntimeModel`: what a compiled model runs, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.lowering.plan import AgainStep, BranchStep, LaunchStep, LoopStep, SizesStep
from clinfer.ports import Node

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.lowering.plan import Plan
    from clinfer.ports import Port


class RuntimeModel:
    """The kernel launches, host steps and branches of a compiled model as nodes, in their order.

    A node's `rt_info` has 'layerType', what it computes; 'execType', the kernel, 'host',
    'branch', 'loop' or 'again', its end; and 'originalLayersNames', the graph's nodes.
    """

    def __init__(self, model: CompiledModel) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.friendly_name = str(model.get_property("NETWORK_NAME"))
        self._steps = [_step(plan, step) for plan in model._plans for step in plan.steps]

    def input(self, index: int = 0) -> Port:
        """An input."""
        return self.inputs[index]

    def output(self, index: int = 0) -> Port:
        """An output."""
        return self.outputs[index]

    def get_friendly_name(self) -> str:
        """The name of the file that the model was compiled from."""
        return self.friendly_name

    def get_ordered_ops(self) -> list[Node]:
        """Parameters, launches and host steps in their order, results."""
        parameters = [port.node for port in self.inputs]
        return [*parameters, *self._steps, *(port.node for port in self.outputs)]

    def get_ops(self) -> list[Node]:
        """As `get_ordered_ops`."""
        return self.get_ordered_ops()

    def __repr__(self) -> str:
        return f"<RuntimeModel: {len(self._steps)} steps>"


_WITHOUT_KERNEL = {
    BranchStep: "branch",
    LoopStep: "loop",
    AgainStep: "again",
    SizesStep: "sizes",
}


def _step(plan: Plan, step: object) -> Node:
    label = getattr(step, "label", type(step).__name__)
    if isinstance(step, LaunchStep):
        kernel = plan.programs[step.program].entry
    else:
        kernel = _WITHOUT_KERNEL.get(type(step), "host")
    kind = label.split(" ", 1)[0]
    info = {"layerType": kind, "execType": kernel, "originalLayersNames": label}
    return Node(kind, label, info=info)
