"""Every elementwise ONNX operator against the ONNX reference evaluator, on vectors and scalars.

Operators that take the same operands are computed by one kernel with many outputs.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from harness import TARGETS, Array, dtype_name, numpy_dtype, run_kernel
from onnx.reference import ReferenceEvaluator

from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.onnx_pointwise import ONNX_DTYPES, POINTWISE, result_dtype
from clinfer_kernels.pointwise import candidates, emit
from clinfer_kernels.simplify import simplify
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.types import TYPES

Case = tuple[str, dict[str, Any]]
COUNT = 43  # five vectors of eight and a rest of three
OPSET = 23
ONNX_NUMBERS = {name: number for number, name in ONNX_DTYPES.items()}

UNARY_FLOAT: list[Case] = [
    *((name, {}) for name in ("Abs", "Atan", "Asinh", "Ceil", "Cos", "Cosh", "Erf", "Exp")),
    *((name, {}) for name in ("Floor", "HardSwish", "Identity", "IsNaN", "Mish", "Neg")),
    *((name, {}) for name in ("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh")),
    *((name, {}) for name in ("Softplus", "Softsign", "Tan", "Tanh")),
    ("Celu", {"alpha": 1.5}),
    ("Elu", {"alpha": 0.7}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("IsInf", {}),
    ("IsInf", {"detect_negative": 0}),
    ("IsInf", {"detect_positive": 0}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Selu", {}),
    ("Shrink", {"bias": 0.3, "lambd": 0.8}),
    ("ThresholdedRelu", {"alpha": 0.6}),
]
UNARY_FINITE: list[Case] = [("Gelu", {}), ("Gelu", {"approximate": "tanh"})]  # -inf * 0 is open
UNARY_POSITIVE: list[Case] = [(name, {}) for name in ("Log", "Sqrt", "Acosh")]
UNARY_UNIT: list[Case] = [(name, {}) for name in ("Acos", "Asin", "Atanh")]
BINARY: list[Case] = [
    *((name, {}) for name in ("Add", "Sub", "Mul", "Div", "Equal", "Greater", "GreaterOrEqual")),
    *((name, {}) for name in ("Less", "LessOrEqual")),
]
BINARY_FLOAT: list[Case] = [*BINARY, ("Mod", {"fmod": 1}), ("PRelu", {})]
VARIADIC: list[Case] = [(name, {}) for name in ("Max", "Min", "Sum")]
INTEGER: list[Case] = [
    *((name, {}) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("Mod", {}),
    ("Mod", {"fmod": 1}),
]


def build(cases: list[Case], inputs: list[str]) -> Expr:
    """One expression with an output per case, all on the same operands."""
    builder = Builder(inputs)
    numbers = list(range(len(inputs)))
    return builder.build(*(POINTWISE[op].build(builder, numbers, a) for op, a in cases))


def reference(case: Case, operands: list[Array]) -> Array:
    """What the ONNX reference evaluator makes of one operator."""
    op, attrs = case
    names = [f"x{i}" for i in range(len(operands))]
    infos = [
        onnx.helper.make_tensor_value_info(n, ONNX_NUMBERS[dtype_name(x)], x.shape)
        for n, x in zip(names, operands, strict=True)
    ]
    result = onnx.helper.make_tensor_value_info("y", 1, None)
    node = onnx.helper.make_node(op, names, ["y"], **attrs)
    graph = onnx.helper.make_graph([node], "g", infos, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        (value,) = ReferenceEvaluator(model).run(None, dict(zip(names, operands, strict=True)))
    return np.asarray(value)


def compute(expr: Expr, operands: list[Array], cls: str) -> list[Array]:
    """The expression's outputs over flat operands of one size."""
    shape = (operands[0].size,)
    ins = tuple(dense(d, shape) for d in expr.inputs)
    outs = tuple(dense(d, shape) for d in expr.output_dtypes)
    spec = PointwiseSpec(expr, ins, outs)
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    return run_kernel(kernel, operands, [(shape, d) for d in expr.output_dtypes])


def check(cases: list[Case], operands: list[Array], cls: str, rtol: float = 3e-6) -> None:
    expr = build(cases, [dtype_name(x) for x in operands])
    for case, dtype in zip(cases, expr.output_dtypes, strict=True):
        assert dtype == result_dtype(case[0], expr.inputs, case[1]), case
    values = compute(expr, operands, cls)
    for case, value in zip(cases, values, strict=True):
        wanted = reference(case, operands)
        assert dtype_name(value) == dtype_name(wanted), case
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(
                value.astype(np.float64),
                wanted.astype(np.float64),
                rtol=rtol,
                atol=rtol / 10,
                err_msg=str(case),
            )


def floats(seed: int, scale: float = 4.0, special: bool = True) -> Array:
    values = np.random.default_rng(seed).normal(0, scale, COUNT).astype(np.float32)
    if special:
        values[:4] = [0.0, np.inf, -np.inf, np.nan]
    return values


def integers(seed: int, dtype: str, low: int = -90, high: int = 90) -> Array:
    rng = np.random.default_rng(seed)
    return rng.integers(low if TYPES[dtype].kind == "i" else 0, high, COUNT).astype(dtype)


@pytest.mark.parametrize("cls", TARGETS)
def test_unary_floats(cls: str) -> None:
    check(UNARY_FLOAT, [floats(1)], cls)


@pytest.mark.parametrize("cls", TARGETS)
def test_unary_with_limited_domain(cls: str) -> None:
    check(UNARY_FINITE, [floats(1, special=False)], cls, rtol=1e-5)
    check(UNARY_POSITIVE, [np.abs(floats(2)) + 1], cls)
    check(UNARY_UNIT, [np.tanh(floats(3, special=False))], cls)


@pytest.mark.parametrize("cls", TARGETS)
def test_binary_floats(cls: str) -> None:
    check(BINARY_FLOAT + VARIADIC, [floats(4), floats(5)[::-1].copy()], cls)
    check([*VARIADIC, ("Mean", {})], [floats(4), floats(5), floats(6)], cls)
    check([("Pow", {})], [np.abs(floats(7)), floats(8, 1.0)], cls)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_and_remainders_beside_special_values(cls: str, dtype: str) -> None:
    """PoCL's `fmod(double8)` never ends, and its `pow(double8)` errs, beside such lanes."""
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(0.3, 9, COUNT).astype(dtype) for _ in range(2))
    x[1::7], x[2::11], x[3::13] = 0, np.inf, np.nan
    y[2::7], y[4::11], y[6::13] = 0, np.inf, np.nan
    check([("Pow", {}), ("Mod", {"fmod": 1})], [x, y], cls)
    check([("Mod", {"fmod": 1})], [-x, y], cls)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_numbers_of_every_size(cls: str, dtype: str) -> None:
    """Small numbers keep their results beside huge ones, infinities and NaN."""
    rng = np.random.default_rng(0)
    powers = rng.uniform(-30, 30, COUNT), rng.uniform(-3, 2, COUNT)
    sizes = 10.0 ** np.where(rng.random(COUNT) < 0.5, *powers)
    x = (rng.choice([-1, 1], COUNT) * sizes).astype(dtype)
    x[3::11], x[4::13], x[5::17] = np.inf, np.nan, -np.inf
    rtol = 2e-5 if dtype == "float32" else 1e-9
    plain = ("Abs", "Atan", "Ceil", "Cos", "Floor", "Round", "Sigmoid", "Sin", "Tan", "Tanh")
    check([(name, {}) for name in plain], [x], cls, rtol)
    check([(name, {}) for name in ("Log", "Sqrt")], [np.abs(x)], cls, rtol)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integers(dtype: str) -> None:
    x, y = integers(1, dtype), integers(2, dtype, 1)
    y[y == 0] = 3
    cases = [c for c in BINARY if c[0] != "Div"] + INTEGER + VARIADIC
    check(cases, [x, y], "cpu")
    (quotient,) = compute(build([("Div", {})], [dtype, dtype]), [x, y], "cpu")
    assert (quotient == np.trunc(x.astype(np.float64) / y.astype(np.float64))).all()
    signed = [("Neg", {})] if TYPES[dtype].kind == "i" else []
    check([("Abs", {}), ("Sign", {}), ("BitwiseNot", {}), *signed], [x], "cpu")


def test_integer_division_never_traps() -> None:
    x = np.array([-(2**31), 5, -7, 0, 2**31 - 1], np.int32)
    y = np.array([-1, 0, 0, 0, -1], np.int32)
    cases: list[Case] = [("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1})]
    quotient, *remainders = compute(build(cases, ["int32", "int32"]), [x, y], "cpu")
    assert quotient.tolist() == [-(2**31), 0, 0, 0, -(2**31) + 1]
    assert all((r[[0, 4]] == 0).all() for r in remainders)


@pytest.mark.parametrize("cls", TARGETS)
def test_powers_of_mixed_types(cls: str) -> None:
    base = integers(3, "int32", -9, 9)
    check([("Pow", {})], [base, integers(4, "int64", 0, 5)], cls)
    check([("Pow", {})], [np.abs(base), np.abs(floats(5, 1.0, False))], cls)
    check([("Pow", {})], [floats(6), integers(7, "int32", -3, 4)], cls)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(direction: str) -> None:
    for dtype in ("uint8", "uint32", "uint64"):
        case = ("BitShift", {"direction": direction})
        check([case], [integers(8, dtype), integers(9, dtype, 0, 8)], "cpu")
    for dtype in ("int8", "int32"):
        case = ("BitShift", {"direction": direction})
        check([case], [integers(8, dtype, -99, 99), integers(9, dtype, -3, 40)], "cpu")


@pytest.mark.parametrize("cls", TARGETS)
def test_bools(cls: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.random(COUNT) > 0.5 for _ in range(2))
    check([(op, {}) for op in ("And", "Or", "Xor", "Equal")], [x, y], cls)
    check([("Not", {})], [x], cls)
    for dtype in ("float32", "int64", "uint8"):
        check([("Where", {})], [x, integers(1, "int8").astype(dtype), integers(2, dtype)], cls)


@pytest.mark.parametrize("cls", TARGETS)
def test_clip(cls: str) -> None:
    bounds = np.full(COUNT, -0.5, np.float32), np.full(COUNT, 1.25, np.float32)
    check([("Clip", {})], [floats(1), *bounds], cls)
    builder = Builder(["float32"])
    old = POINTWISE["Clip"].build(builder, [0], {"min": -0.5, "max": 1.25})
    (value,) = compute(builder.build(old), [floats(1)], cls)
    np.testing.assert_array_equal(value, np.clip(floats(1), -0.5, 1.25))


@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16", "int8", "int64", "bool"])
def test_casts(source: str) -> None:
    """All targets of one source in one kernel."""
    x = np.linspace(-100, 100, COUNT).astype(numpy_dtype(source))
    for signed in (True, False):
        kinds = {n: TYPES[n].kind for n in ONNX_NUMBERS}
        names = [n for n, kind in kinds.items() if (kind != "u" and n not in UNSIGNED) == signed]
        operand = x if signed else np.abs(x)
        cases: list[Case] = [("Cast", {"to": ONNX_NUMBERS[n]}) for n in names]
        for name, value in zip(
            names, compute(build(cases, [source]), [operand], "cpu"), strict=True
        ):
            assert dtype_name(value) == name
            np.testing.assert_array_equal(value, cast_by_numpy(operand, name), name)


UNSIGNED = ("float8_e8m0fnu",)
"""Floats without a sign."""


def cast_by_numpy(x: Array, name: str) -> Array:
    """As NumPy and ml_dtypes cast, but for what ONNX and ONNX Runtime do another way."""
    dtype = numpy_dtype(name)
    if name == "float8_e8m0fnu":  # ONNX's default is up; its own function says what 0 becomes
        wide = x.astype(np.float32)
        return onnx.numpy_helper.to_float8e8m0(wide, True, "up").astype(dtype)
    if name in ("int4", "uint4", "int2", "uint2"):
        wide = x.astype(np.float64)
        # ONNX Runtime rounds, halves away from 0, and leaves out the high bits.
        bits = (np.sign(wide) * np.floor(np.abs(wide) + 0.5)).astype(np.int64)
        size = int(name[-1])
        low = bits & (2**size - 1)
        return (low - (2**size * (low >= 2 ** (size - 1)) if name[0] == "i" else 0)).astype(dtype)
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_storage_rounding(dtype: str) -> None:
    """To nearest even, with denormals, overflow and NaN, on vectors and scalars."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.integers(0, 2**32, 4096, np.uint32).view(np.float32),
            (rng.normal(0, 1e-6, 1000)).astype(np.float32),
            np.array([65504, 65519.99, 65520, -65536, 1e-8, 3e-8, np.nan, np.inf], np.float32),
        ]
    )
    case: Case = ("Cast", {"to": ONNX_NUMBERS[dtype]})
    for cls in TARGETS:
        (value,) = compute(build([case], ["float32"]), [x], cls)
        with np.errstate(all="ignore"):
            wanted = x.astype(numpy_dtype(dtype)).astype(np.float32)
        np.testing.assert_array_equal(value.astype(np.float32), wanted)
        (back,) = compute(build([("Cast", {"to": 1})], [dtype]), [value], cls)
        np.testing.assert_array_equal(back, value.astype(np.float32))


def test_vector_functions_are_accurate() -> None:
    """1e-6 relative on the whole range, and right limits."""
    x = np.concatenate([np.linspace(-12, 12, 4001), np.linspace(-110, 95, 4000)])
    x = np.concatenate([x, [np.inf, -np.inf, np.nan, 1e-30]]).astype(np.float32)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        wanted = {"Exp": np.exp(wide), "Tanh": np.tanh(wide), "Erf": np.vectorize(math.erf)(wide)}
        rounded = {op: value.astype(np.float32) for op, value in wanted.items()}
    values = compute(build([(op, {}) for op in wanted], ["float32"]), [x], "cpu")
    for op, value in zip(wanted, values, strict=True):
        np.testing.assert_allclose(value, rounded[op], rtol=5e-7, atol=1e-44, err_msg=op)


def test_simplify_keeps_values() -> None:
    builder = Builder(["float32"])
    outs = []
    for op, constant in (("pow", 2.0), ("pow", 0.5), ("pow", -1.0), ("pow", 3.0), ("div", 8.0)):
        outs.append(builder.op(op, 0, builder.const(constant, "float32")))
    for op, constant in (("max", 0.25), ("min", 0.75), ("add", 0.0), ("mul", 1.0), ("div", 3.0)):
        outs.append(builder.op(op, 0, builder.const(constant, "float32")))
    expr = builder.build(*outs)
    simple = simplify(expr)
    assert "pow" not in {line.op for line in simple.lines}
    x = np.abs(floats(1))
    for before, after in zip(compute(expr, [x], "cpu"), compute(simple, [x], "cpu"), strict=True):
        np.testing.assert_allclose(after, before, rtol=2e-7)
    assert simplify(identity("int8")) == identity("int8")


def test_unknown_types_and_operations() -> None:
    with pytest.raises(ValueError, match="element type 8"):
        result_dtype("Cast", ["float32"], {"to": 8})
    builder = Builder(["int32"])
    expr = builder.build(builder.op("sqrt", 0))
    with pytest.raises(ValueError, match="'sqrt' does not take int32"):
        compute(expr, [np.zeros(3, np.int32)], "cpu")
