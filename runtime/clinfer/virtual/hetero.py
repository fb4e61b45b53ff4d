"""HETERO: each device computes its part of the graph, one part after the other.

What goes from part to part are arrays of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer.device.results import own
from clinfer.graph.model import Model
from clinfer.graph.parts import Piece, graph_of, split
from clinfer.plugins.base import Source
from clinfer.sha256 import sha256
from clinfer.virtual.base import Group
from clinfer.virtual.placing import places
from clinfer.virtual.signature import Fitting, signature_of

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.asked import Asked
    from clinfer.device.profile import StepTime
    from clinfer.graph.ir import Graph
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.base import Session
    from clinfer.virtual.parts import Part, Recipe

SUBMODELS = "HETERO_NUMBER_OF_SUBMODELS"


def make(asked: Asked, recipe: Recipe, parts: Sequence[Part]) -> Chain:
    """The model in parts, each on its device. Raises what the first to fail raises."""
    model = recipe.source.read()
    graph = model.graph()
    placed = places(model, [part.opened() for part in parts])
    pieces = split(graph, placed, parts[0].device)
    of_device = {part.device: part for part in parts}
    models = []
    for piece in pieces:
        source = _source(recipe.source, model, graph, piece)
        made = recipe._replace(source=source, origin=None)
        models.append(made.model(of_device[piece.place]))
    return Chain(graph, pieces, models)


def _source(whole: Source, model: Model, graph: Graph, piece: Piece) -> Source:
    """A piece as what a plugin compiles; its key says which nodes of the model it has."""
    positions = {node: index for index, node in enumerate(graph.nodes)}
    ports = [[value.name for value in values] for values in (piece.inputs, piece.outputs)]
    said = str([[positions[node] for node in piece.nodes], *ports])
    chosen = sha256(said.encode()).hexdigest()
    part = Model(graph_of(graph, piece), model.source, _external=model._external)
    return whole._replace(read=lambda: part, shapes=f"{whole.shapes}; nodes {chosen}")


class Chain(Group):
    """Models that run in turn, each with the results of those before it."""

    def __init__(
        self, graph: Graph, pieces: Sequence[Piece], models: Sequence[CompiledModel]
    ) -> None:
        self._models = list(models)
        self._signature = signature_of(graph)
        self.inputs = [value.name for value in graph.inputs]
        self.outputs = [value.name for value in graph.outputs]
        self.reads = [[value.name for value in piece.inputs] for piece in pieces]
        self.gives = [[value.name for value in piece.outputs] for piece in pieces]
        self.ends = _ends(self.reads, self.outputs)

    @property
    def main(self) -> CompiledModel:
        return self._models[0]

    @property
    def members(self) -> Sequence[CompiledModel]:
        return self._models

    @property
    def plans(self) -> Sequence[Plan]:
        return [model.plan for model in self._models]

    @property
    def signature(self) -> Plan:
        return self._signature

    def execution_devices(self) -> list[str]:
        return list(dict.fromkeys(super().execution_devices()))

    def readable(self) -> Mapping[str, Callable[[], Any]]:
        return {SUBMODELS: lambda: len(self._models)}

    def session(self) -> Session:
        return _InTurn(self, [model._session() for model in self._models])


class _InTurn:
    def __init__(self, chain: Chain, sessions: Sequence[Session]) -> None:
        self._chain = chain
        self._sessions = sessions
        self._fitting = Fitting(chain.signature)
        self.profile: tuple[StepTime, ...] = ()

    def check(self, inputs: Sequence[Any]) -> None:
        """Sizes that two parts must agree on are seen here, and in no part."""
        self._fitting.require(inputs)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        self.check(inputs)
        chain, self.profile = self._chain, ()
        held = dict(zip(chain.inputs, inputs, strict=True))
        given = set(chain.inputs)  # the caller's arrays, and results that were given out
        for index, session in enumerate(self._sessions):
            results = session.run([held[name] for name in chain.reads[index]])
            held.update(zip(chain.gives[index], results, strict=True))
            given.difference_update(chain.gives[index])
            self.profile += session.profile
            for name in chain.ends[index]:
                held.pop(name, None)
        found = []
        for name in chain.outputs:
            found.append(own(held[name]) if name in given else held[name])
            given.add(name)
        return found


def _ends(reads: Sequence[Sequence[str]], outputs: Sequence[str]) -> list[list[str]]:
    """By part the values that nobody reads after it."""
    last = {name: index for index, names in enumerate(reads) for name in names}
    ends: list[list[str]] = [[] for _ in reads]
    for name, index in last.items():
        if name not in outputs:
            ends[index].append(name)
    return ends
