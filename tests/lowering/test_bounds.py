"""Views that leave their buffers: found when a model is compiled, or when sizes are bound."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from clinfer.errors import ShapeError
from clinfer.lowering.binding import MOST_ELEMENTS, Sizes, check_reach
from clinfer.lowering.bounds import Proofs
from clinfer_kernels.broadcasts import repeated
from clinfer_kernels.dims import Dim, sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import GatherSpec, MatmulSpec, PointwiseSpec, ScatterSpec

N, M, K = sym("n"), sym("m"), sym("k")


class Stored(NamedTuple):
    """A view's buffer, of its own."""

    size: Dim

    @property
    def storage(self) -> Stored:
        return self


def proofs(spec) -> Proofs:
    """What a spec leaves to be proved; each operand has a buffer of its own size."""
    found = Proofs()
    ins, outs = ([Stored(t.size) for t in group] for group in (spec.ins, spec.outs))
    found.launch(spec, ins, outs, "node")
    return found


def add(*views: Tensor) -> PointwiseSpec:
    builder = Builder(["float32", "float32"])
    expr = builder.build(builder.op("add", 0, 1))
    return PointwiseSpec(expr, views[:2], (dense("float32", views[0].shape),))


def check(found: Proofs, **values: int) -> None:
    for reach in found.reaches:
        check_reach(reach, Sizes(values))


def test_dense_views_of_their_own_buffers_need_only_be_countable():
    found = proofs(add(dense("float32", (N, 4)), dense("float32", (N, 4))))
    assert [r.size for r in found.reaches] == [4 * N]
    check(found, n=1000)
    with pytest.raises(ShapeError, match=r"node: .* kernels count up to"):
        check(found, n=MOST_ELEMENTS // 4 + 1)


def test_a_part_of_a_larger_buffer_is_proved_by_its_bounds():
    part = Tensor("float32", (N, 4), (10, 1), 6)
    spec = PointwiseSpec(identity("float32"), (part,), (dense("float32", (N, 4)),))
    found = Proofs()
    found.launch(spec, [Stored(10 * N)], [Stored(4 * N)], "node")
    assert {r.shape for r in found.reaches} == {(10 * N,), (4 * N,)}
    with pytest.raises(ShapeError, match="elements 0 to 9 of an operand that has 8"):
        Proofs().view(Tensor("float32", (2, 4), (6, 1)), 8, "node")
    with pytest.raises(ShapeError, match="elements -1 to 2"):
        Proofs().view(Tensor("float32", (4,), (-1,), 2), 8, "node")


def test_an_operand_of_another_size_fits_where_it_is_one_or_the_same():
    own = Tensor("float32", (M,), (repeated(1, N, M),))
    spec = PointwiseSpec(identity("float32"), (own,), (dense("float32", (M,)),))
    found = Proofs()
    found.launch(spec, [Stored(N)], [Stored(M)], "node")
    check(found, n=1, m=5)
    check(found, n=5, m=5)
    check(found, n=3, m=0)
    with pytest.raises(ShapeError, match=r"node: .* elements 0 to 4 of an operand that has 3"):
        check(found, n=3, m=5)


def test_sizes_that_a_family_takes_to_be_one_become_constraints():
    views = dense("float32", (N, K)), dense("float32", (M, 4))
    spec = MatmulSpec(False, identity("float32"), views, (dense("float32", (N, 4)),))
    found = proofs(spec)
    assert [(c.left, c.right, c.relation) for c in found.constraints] == [(K, M, "equal")]
    wrong = spec.__class__(False, spec.epilogue, views, (dense("float32", (N, 5)),))
    with pytest.raises(ShapeError, match="must be equal, found 4 and 5"):
        proofs(wrong)


def test_indices_wider_than_the_data_are_too_large():
    index, data = dense("int64", (N, M)), dense("float32", (2, 3))
    gather = GatherSpec("elements", 0, 0, (data, index), (dense("float32", (N, M)),))
    assert [(c.left, c.right, c.relation) for c in proofs(gather).constraints] == [
        (M, 3, "at most")
    ]
    updates = dense("float32", (N, K))
    scatter = ScatterSpec("elements", 0, "none", (data, index, updates), (data,))
    relations = {(c.left, c.right, c.relation) for c in proofs(scatter).constraints}
    assert relations == {(M, K, "equal"), (M, 3, "at most")}
