"""Products of floats with a constant of few bits, for class "gpu": the schedules of `contraction`.

Few rows read codes and multiply what these stand for (`few_encoded`); with more rows codes become
numbers on their way to local memory (`encoded`), where any unit multiplies them.
"""

from __future__ import annotations

from clinfer_kernels.contraction.emit import emit_product
from clinfer_kernels.contraction.encoded import EncodedWalk
from clinfer_kernels.contraction.ends import MatrixEnd
from clinfer_kernels.contraction.formats import Format, format_of
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import Choice, choices
from clinfer_kernels.contraction.walks import MatrixWalk
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix_text import bases, declare_batch, suffix
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import EncodedMatmulSpec


def gpu_tiles(spec: EncodedMatmulSpec, problem: Problem, target: Target) -> tuple[Choice, ...]:
    """The tiles within the device's limits, the best guess first; none for formats that are not
    read."""
    how = format_of(spec)
    if how is None or problem.acc != "float32":
        return ()
    return choices(_product(how, problem), target, has_rows=True)


def emit_gpu(spec: EncodedMatmulSpec, problem: Problem, tile: Choice, target: Target) -> Kernel:
    """The launches of all cuts of a tile; codes, scales and zero points are laid out anew."""
    how = format_of(spec)
    assert how is not None
    return emit_product(_product(how, problem), tile, target)


def _product(how: Format, problem: Problem) -> Product:
    a = problem.a
    walk = MatrixWalk("a", a, "in", 0, problem.m, "M", problem.k, problem.acc)
    return Product(
        name="matmul",
        suffix=suffix(a) + how.suffix,
        m=problem.m,
        n=problem.n,
        k=problem.k,
        batches=problem.batches,
        acc=problem.acc,
        a=lambda k_step: walk,
        b=EncodedWalk(how),
        end=MatrixEnd(problem),
        declare_batch=lambda signature: declare_batch(signature, problem.batch),
        batch=lambda names: bases(names, len(problem.batch)),
        operands=("a",),
        flops=problem.flops,
        packs=how.packs,
        stored=(a.dtype, a.dtype),
        helpers=how.helpers,
    )
