"""Operators of com.microsoft, ONNX Runtime's own domain, as operators of ONNX.

Each is rewritten when a model is read, so that everything after the reader knows ONNX alone and the
patterns that fuse ONNX's operators fuse these too. A module here has the rules of a family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinfer.graph.contrib import (
    activations,
    attention,
    decoding,
    experts,
    grouped,
    lookups,
    norms,
    packed,
    products,
    quantised,
    same,
    states,
)
from clinfer.graph.contrib.maker import Rule, rewritten
from clinfer.graph.contrib.schema import DOMAIN

__all__ = ["DOMAIN", "RANKS", "RULES", "rewritten"]

RULES: Mapping[str, Rule] = {
    **activations.RULES,
    **attention.RULES,
    **decoding.RULES,
    **experts.RULES,
    **grouped.RULES,
    **lookups.RULES,
    **norms.RULES,
    **packed.RULES,
    **quantised.RULES,
    **products.RULES,
    **same.RULES,
    **states.RULES,
}

_SOME = range(1, 9)
_IMAGES = (3, 4, 5)
_CACHE = (4,)
RANKS: Mapping[str, Mapping[int, Sequence[int]]] = {
    "BiasGelu": {0: _SOME, 1: (1,)},
    "FastGelu": {1: (1,)},
    "BiasSplitGelu": {0: _SOME, 1: (1,)},
    "BiasSoftmax": {0: _SOME},
    "SkipLayerNormalization": {0: (2, 3), 1: (2, 3), 2: (1,), 3: (1,), 4: (1,)},
    "SkipSimplifiedLayerNormalization": {0: (2, 3), 1: (2, 3), 2: (1,), 3: (1,)},
    "EmbedLayerNormalization": {
        **dict.fromkeys((0, 1, 2, 3, 4, 7, 8), (2,)),
        **dict.fromkeys((5, 6), (1,)),
    },
    "GroupNorm": {0: _IMAGES, 1: (1,), 2: (1,)},
    "SkipGroupNorm": {0: (4,), 1: (1,), 2: (1,), 3: (2, 4), 4: (1,)},
    "FusedMatMul": {0: _SOME, 1: _SOME},
    "TransposeMatMul": {0: _SOME, 1: _SOME},
    "NhwcConv": {0: _IMAGES, 1: _IMAGES},
    "RotaryEmbedding": {0: (3, 4), 1: (1, 2), 2: (2,), 3: (2,)},
    "Attention": {0: (3,), 1: (2,), 2: (1,), 3: (1, 2, 3, 4), 4: (5,), 5: (4,)},
    "QAttention": {0: (3,), 1: (2,), 2: (1,), 5: (1, 2, 3, 4), 8: (5,)},
    "MultiHeadAttention": {
        0: (3, 5),
        1: (3, 4, 5),
        2: (3, 4),
        3: (1,),
        4: (1, 2, 3),
        5: (4,),
        **dict.fromkeys((6, 7), _CACHE),
    },
    "GroupQueryAttention": {
        **dict.fromkeys((0, 1, 2), (3,)),
        **dict.fromkeys((3, 4, 10), _CACHE),
        **dict.fromkeys((5, 7, 8, 9), (1, 2)),
        **dict.fromkeys((14, 15), (1,)),
    },
    "MatMulNBits": {0: _SOME},
    "MatMulBnb4": {0: _SOME},
    "GatherBlockQuantized": {0: _SOME},
    "DecoderMaskedMultiHeadAttention": {
        0: (3,),
        1: (3, 4),
        2: (3, 4),
        3: (2,),
        **dict.fromkeys((4, 5, 6), (4,)),
        10: (1,),
    },
    "RelativePositionBias": {0: (2,)},
    "CDist": {0: (2,), 1: (2,)},
    "Tokenizer": {0: (1, 2)},
    "GridSample": {0: (4,), 1: (4,)},
    "DynamicQuantizeLSTM": {**dict.fromkeys((0, 1, 2), (3,)), **dict.fromkeys((8, 10), (1, 2))},
    "NhwcFusedConv": {0: _IMAGES, 1: _IMAGES},
    "CausalConvWithState": {1: (3,), 2: (1,)},
    "LinearAttention": {**dict.fromkeys((0, 1, 2, 4, 5), (3,)), 3: (4,)},
    "GatedRMSNorm": {0: _SOME, 1: (1,)},
    "MRotaryEmbedding": {0: (3, 4), 1: (3,), 2: (2,), 3: (2,)},
    "MoE": {0: (2, 3), 1: (2,), **dict.fromkeys((2, 4, 6), (3,)), **dict.fromkeys((3, 5, 7), (2,))},
    "QMoE": {
        0: (2, 3),
        **dict.fromkeys((1, 4, 7, 10, 14), (2,)),
        **dict.fromkeys((2, 5, 8), (3,)),
        **dict.fromkeys((3, 6, 9, 11, 12, 13), (2, 3)),
    },
    "QGemm": {0: (2,), 3: (2,)},
    "QLinearSoftmax": {0: _SOME},
    "QLinearAveragePool": {0: _IMAGES},
    "QLinearGlobalAveragePool": {0: _IMAGES},
    "QLinearConv": {0: _IMAGES},
    "NhwcMaxPool": {0: _IMAGES},
}
"""Ranks that inputs may have, by number, where the rules rely on them."""
