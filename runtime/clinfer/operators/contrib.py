"""Operators of com.microsoft: what their attributes may hold.

Their schemas are text (`contrib_schemas`); `graph.contrib` makes operators of ONNX of them when a
model is read, and those have the relations between operands.
"""

from __future__ import annotations

from clinfer.operators import Operator
from clinfer.operators.contrib_schemas import TEXT
from clinfer.operators.values import NATURAL, POSITIVE, SWITCH, Expected, among, words

_PAD = words("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_ACTIVATION = words(
    *("", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid", "Elu", "Softplus", "Selu"),
    "ThresholdedRelu",
)
_GROUPS: dict[str, Expected] = {
    "groups": POSITIVE,
    "activation": SWITCH,
    "channels_last": SWITCH,
}
_VALUES: dict[str, dict[str, Expected]] = {
    "FusedConv": {"activation": _ACTIVATION, "auto_pad": _PAD},
    "NhwcFusedConv": {"activation": _ACTIVATION, "auto_pad": _PAD},
    "NhwcConv": {"auto_pad": _PAD},
    "FusedGemm": {"activation": _ACTIVATION},
    "GroupNorm": _GROUPS,
    "SkipGroupNorm": _GROUPS,
    "EmbedLayerNormalization": {"mask_index_type": among(0, 1, 2)},
    "Attention": {"num_heads": POSITIVE},
    "QAttention": {"num_heads": POSITIVE},
    "MultiHeadAttention": {"num_heads": POSITIVE},
    "GroupQueryAttention": {
        "num_heads": POSITIVE,
        "kv_num_heads": POSITIVE,
        "k_quant_type": words("NONE", "PER_TENSOR", "PER_CHANNEL"),
        "v_quant_type": words("NONE", "PER_TENSOR", "PER_CHANNEL"),
    },
    "RotaryEmbedding": {"num_heads": NATURAL, "rotary_embedding_dim": NATURAL},
    "MatMulNBits": {
        "bits": among(2, 4, 8),
        "block_size": POSITIVE,
        "K": POSITIVE,
        "N": POSITIVE,
    },
    "GatherBlockQuantized": {"bits": among(4, 8), "block_size": POSITIVE},
    "MatMulBnb4": {"quant_type": SWITCH, "block_size": POSITIVE, "K": POSITIVE, "N": POSITIVE},
    **{name: {"auto_pad": _PAD} for name in ("QLinearAveragePool", "QLinearConv", "NhwcMaxPool")},
    "Pad": {"mode": words("constant", "reflect", "edge")},
    "QLinearSoftmax": {"opset": POSITIVE},
}


def _names() -> list[str]:
    return [line.split()[0] for line in TEXT.splitlines() if not line.startswith(" ")]


OPERATORS = tuple(Operator(f"com.microsoft.{name}", _VALUES.get(name, {})) for name in _names())
