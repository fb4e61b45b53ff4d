"""The attention family: softmax(Q K^T scale + mask) V in one pass, any strides, grouped heads.

`attention_problem` names the sizes and strides; a schedule (`attention_cpu`, `attention_gpu`,
`attention_matrix`, `attention_rows`) makes the text; `candidates` lists the tiles worth trying. No
schedule keeps the scores in memory. Sums are kept in float32 (float64 for float64).

A row whose keys are all masked with -inf gives NaN, as the softmax of a row of -inf does; finite
masks, however large, give what their sums in float32 give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer_kernels.attention_cpu import LaneTile, emit_lanes, lane_tiles
from clinfer_kernels.attention_problem import simplify, takes
from clinfer_kernels.attention_rows import RowTile, emit_rows, row_tile
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import AttentionSpec

if TYPE_CHECKING:
    from clinfer_kernels.attention_matrix_tiles import MatrixTile
    from clinfer_kernels.attention_tiles import LocalTile

    Tile = LaneTile | MatrixTile | LocalTile | RowTile

_FEW = 4  # queries that leave most lanes of a tile empty


def candidates(spec: AttentionSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` within the target's limits, the best guess first; one is plain.

    Empty where the family has no kernel: operands that are not floats, a mask neither float nor
    bool.
    """
    if not takes(spec):
        return ()
    problem = simplify(spec)
    plain = row_tile(problem, target)
    if target.cls == "gpu":  # a start on a CPU does not import what is for GPUs
        from clinfer_kernels.attention_matrix_tiles import matrix_tiles
        from clinfer_kernels.attention_tiles import local_tiles

        return (*matrix_tiles(problem, target), *local_tiles(problem, target), plain)
    few = isinstance(problem.queries, int) and problem.queries <= _FEW
    lanes = lane_tiles(problem, target)
    return (plain, *lanes) if few else (*lanes, plain)


def emit(spec: AttentionSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    problem = simplify(spec)
    if isinstance(tile, LaneTile):
        return emit_lanes(problem, tile, target)
    if isinstance(tile, RowTile):
        return emit_rows(problem, tile, target)
    from clinfer_kernels.attention_gpu import emit_local
    from clinfer_kernels.attention_matrix import emit_matrix
    from clinfer_kernels.attention_matrix_tiles import MatrixTile

    if isinstance(tile, MatrixTile):
        return emit_matrix(problem, tile, target)
    return emit_local(problem, tile, target)
