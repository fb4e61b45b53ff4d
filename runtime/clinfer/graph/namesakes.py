"""Inputs that share the name of a dimension, but that no run reads together.

A merged decoder, as optimum writes it, is one If: the branch for a first call reads the encoder's
states, the other one the keys that were kept of them, and a first call gives those empty. The file
calls both sizes `encoder_sequence_length`. So a name says that two sizes are the same only among
what is read together:

    main graph, both branches    the name itself
    then_branch alone            the name itself, or one of its own where others have that
    else_branch alone            one of its own

A branch that reads sizes of one name under several has them as one inside, and that they are the
same must hold where it is taken (docs/control-flow.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.late import in_shapes
from clinfer.graph.node_protos import encoded, outer_places
from clinfer.graph.protos import free_names
from clinfer.sizes import name_in
from clinfer_kernels.dims import Dim, substitute, sym, symbols

_BRANCHES = ("then_branch", "else_branch")
_Place = tuple[int, str]
"""An If's number among the graph's, and the name of its branch."""


class _Group(NamedTuple):
    """A name, and the branches that alone read the inputs that it is of here."""

    name: str
    places: frozenset[_Place]


def tell_apart(graph: Graph) -> dict[str, str]:
    """Renames sizes of inputs that only branches read; gives the name in the file by the new one.

    The graph's types are then to be inferred anew. Only Ifs that give the graph's results have a
    say: what comes after another one needs a shape, whichever branch was taken.
    """
    places = _places(graph)
    if not places:
        return {}
    alone: dict[_Group, list[Value]] = {}
    shared: set[str] = set()
    for value in graph.inputs:
        found = places.get(value, frozenset())
        for name in in_shapes([value]):
            if found:
                alone.setdefault(_Group(name, found), []).append(value)
            else:
                shared.add(name)
    renamed: dict[str, str] = {}
    for group, values in alone.items():
        if group.name not in shared:
            shared.add(group.name)
            continue
        new = _new_name(group, renamed)
        renamed[new] = group.name
        for value in values:
            value.shape = _replaced(value.known_shape, {group.name: sym(new)})
    graph.namesakes = renamed
    return renamed


def read_together(outer: Graph, body: Graph, captured: Iterable[Value]) -> None:
    """Sizes of one name that a body reads get one symbol; that they agree is required in it."""
    if not outer.namesakes:
        return
    values = list(captured)
    chosen: dict[str, str] = {}
    same: dict[str, Dim] = {}
    for name in sorted(in_shapes(values), key=lambda name: (name in outer.namesakes, name)):
        first = chosen.setdefault(outer.namesakes.get(name, name), name)
        if first != name:
            same[name] = sym(first)
    for value in values:
        different = in_shapes([value]) & set(same)
        if different:
            for name in sorted(different):
                said = f"'{value.name}' and others that '{body.name}' reads share the size "
                file_name = outer.namesakes.get(name, name)
                body.require(same[name], sym(name), f"{said}'{file_name}'")
            value.shape = _replaced(value.known_shape, same)


def _places(graph: Graph) -> dict[Value, frozenset[_Place]]:
    """The inputs that nothing but branches reads, of each If one at most."""
    ifs = [n for n in graph.nodes if n.kind == "If" and n.proto is not None]
    if not ifs:
        return {}
    others = {id(v) for n in graph.nodes if n not in ifs for v in n.inputs}
    others.update(id(v) for v in graph.outputs)
    found: dict[Value, set[_Place]] = {}
    for number, node in enumerate(ifs):
        own = len(node.inputs) - node.captures
        others.update(id(v) for v in node.inputs[:own])
        if any(v is not None and v.users for v in node.outputs):
            others.update(id(v) for v in node.inputs)
            continue
        for branch, values in _read_by(node).items():
            for value in values:
                found.setdefault(value, set()).add((number, branch))
    return {
        value: frozenset(places)
        for value in graph.inputs
        if (places := found.get(value))
        and id(value) not in others
        and len({number for number, _ in places}) == len(places)
    }


def _read_by(node: Node) -> dict[str, list[Value]]:
    """What each branch of an If captures."""
    assert node.proto is not None
    proto = encoded(node.proto)
    places = outer_places(node, proto)
    graphs = {a.name: a.g for a in proto.attribute if a.name in _BRANCHES}
    return {
        branch: [node.required(places[name]) for name in dict.fromkeys(free_names(g))]
        for branch, g in graphs.items()
    }


def _new_name(group: _Group, taken: dict[str, str]) -> str:
    branches = "+".join(sorted({branch for _, branch in group.places}))
    name = name_in(group.name, branches)
    number = 2
    while name in taken:
        name = name_in(group.name, f"{branches}{number}")
        number += 1
    return name


def _replaced(shape: tuple[Dim, ...], values: dict[str, Dim]) -> tuple[Dim, ...]:
    return tuple(substitute(dim, values) if symbols(dim) else dim for dim in shape)
