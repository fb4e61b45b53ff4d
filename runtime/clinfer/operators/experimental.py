"""Operators of the default domain that ONNX does not have: `graph.experimental` rewrites them."""

from __future__ import annotations

from clinfer.operators import Operator

OPERATORS = tuple(
    Operator(kind)
    for kind in (
        "Affine",
        "Crop",
        "DynamicSlice",
        "ImageScaler",
        "ParametricSoftplus",
        "Scale",
        "ScaledTanh",
        "SimplifiedLayerNormalization",
    )
)
