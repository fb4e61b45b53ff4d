"""Which of several devices computes which node: what `query_model` says, and HETERO splits by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinfer.plugins.compiler import host_nodes

if TYPE_CHECKING:
    from clinfer.device.lock import Described
    from clinfer.graph.model import Model


def places(model: Model, devices: Sequence[Described]) -> list[str]:
    """The device of each node, in the graph's order: the first that has a kernel for it.

    What no device has a kernel for runs on the host: with the first CPU, where there is one.
    """
    nodes = model.graph().nodes
    found: dict[int, str] = {}
    names = [device.info.name for device in devices]
    host = next((name for name in names if name.startswith("CPU")), names[0])
    for device in devices:
        if len(found) == len(nodes) or (device is devices[-1] and names[-1] == host):
            break
        without = host_nodes(model, device)
        for index, node in enumerate(nodes):
            if node.describe() not in without:
                found.setdefault(index, device.info.name)
    return [found.get(index, host) for index in range(len(nodes))]
