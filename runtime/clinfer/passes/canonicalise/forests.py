"""Forests of ai.onnx.ml: `clinfer.Forest` gives the raw scores, ONNX's operators do the rest."""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import OWN_DOMAIN, Array, Node, Value
from clinfer.graph.ml.kernel_form import KINDS, Classified, Summed, kernel_form
from clinfer.passes.canonicalise.maker import Maker, cast
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import product


def forest(rw: Rewriter, node: Node) -> Outcome:
    """The scores; of a classifier the labels before them."""
    try:
        form = kernel_form(node)
    except ValueError as error:
        return Refusal(str(error))
    scores = _scores(rw, node, form)
    if not isinstance(form, Classified):
        return _transformed(rw, scores, form.transform)
    label = _label(rw, scores, form)
    if form.is_one:
        return [label, _two_classes(Maker(rw), scores, form)]
    return [label, _transformed(rw, scores, form.transform)]


def _scores(rw: Rewriter, node: Node, form: Summed) -> Value:
    """The scores [rows, targets] before the transform; features that are a vector are one row."""
    x, laid = node.required(0), form.laid
    shape = x.known_shape
    rows, width = (1, shape[0]) if len(shape) == 1 else (shape[0], product(shape[1:]))
    flat = cast(rw, rw.reshape(x, (rows, width)), "float32")
    constants = [laid.nodes, laid.roots, *([] if laid.votes is None else [laid.votes])]
    kind = "sum" if form.aggregate == "average" else form.aggregate
    scores = rw.emit(
        "Forest",
        [flat, *(rw.constant(array) for array in constants)],
        "float32",
        (rows, laid.always.size),
        attrs={"aggregate": kind, "mask": laid.mask, "features": laid.features},
        domain=OWN_DOMAIN,
    )
    make = Maker(rw)
    if form.aggregate == "average":
        scores = make("Div", scores, float(laid.roots.size))
    if form.base.size:
        scores = make("Add", scores, rw.constant(form.base.astype(np.float32)))
    return scores


def _transformed(rw: Rewriter, scores: Value, transform: str) -> Value:
    """One score a row has no transform."""
    if transform == "NONE" or scores.known_shape[1] == 1:
        return scores
    if transform == "LOGISTIC":
        return Maker(rw)("Sigmoid", scores)
    return rw.emit("Softmax", [scores], scores.dtype, scores.shape, attrs={"axis": 1}, version=13)


def _two_classes(make: Maker, scores: Value, form: Classified) -> Value:
    """Scores [rows, 2] for the one score s of the second class: [1 - s, s], or [-s, s]."""
    is_logistic = form.transform == "LOGISTIC"
    second = make("Sigmoid", scores) if is_logistic else scores
    both = make("Mul", second, make.rw.constant(np.array([-1, 1], np.float32)))
    if form.threshold == 0 and not is_logistic:
        return both
    return make("Add", both, make.rw.constant(np.array([1, 0], np.float32)))


def _label(rw: Rewriter, scores: Value, form: Classified) -> Value:
    rows, make = scores.known_shape[0], Maker(rw)
    if not (form.is_one or form.is_second_only):
        first = {"axis": 1, "keepdims": 0, "select_last_index": 0}
        best = rw.emit("ArgMax", [scores], "int64", (rows,), attrs=first, version=13)
        return _picked(rw, best, form.classes)
    deciding = scores
    if not form.is_one:
        deciding = emit_slice(rw, scores, {1: (1, 1)}, Value("", scores.dtype, (rows, 1)))
    above = make("Greater", rw.reshape(deciding, (rows,)), form.threshold, dtype="bool")
    if form.classes.dtype == object:
        return _picked(rw, make.cast(above, "int64"), form.classes)
    first_class, second_class = (rw.constant(np.array(c, np.int64)) for c in form.classes)
    return make("Where", above, second_class, first_class, dtype="int64")


def _picked(rw: Rewriter, places: Value, classes: Array) -> Value:
    """The class at each place; texts are picked on the host."""
    is_text = classes.dtype == object
    if not is_text and np.array_equal(classes, np.arange(classes.size)):
        return places
    inputs, dtype = [rw.constant(classes), places], "string" if is_text else "int64"
    return rw.emit("Gather", inputs, dtype, places.shape, attrs={"axis": 0}, version=13)


RULES = (Rule("trees-to-forest", KINDS, forest, typed=False),)
