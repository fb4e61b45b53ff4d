"""Operators of com.microsoft: what their attributes may hold.

Their schemas are text (`contrib_schemas`); `graph.contrib` makes operators of ONNX of them when a
model is read, and those have the relations between operands.
"""

from __future__ import annotations

from clinfer.operators import Operator
from clinfer.operators.contrib_schemas import TEXT
from clinfer.operators.recurrent import LAYERS
from clinfer.operators.values import NATURAL, POSITIVE, SWITCH, Expected, among, words
from clinfer.operators.values import TEXT as ANY_TEXT

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
_EXPERTS: dict[str, Expected] = {
    "activation_type": words("relu", "relu2", "gelu", "geglu", "silu", "swiglu", "identity"),
    "k": POSITIVE,
    "swiglu_fusion": among(0, 1, 2),
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
        "qk_output": among(0, 1, 2),
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
    "GatherBlockQuantized": {"bits": among(2, 4, 8), "block_size": NATURAL},
    "GridSample": {
        "mode": words("bilinear", "nearest", "bicubic"),
        "padding_mode": words("zeros", "border", "reflection"),
    },
    "Tokenizer": {
        "mincharnum": POSITIVE,
        "pad_value": ANY_TEXT,
        "separators": ANY_TEXT,
        "tokenexp": ANY_TEXT,
    },
    "CDist": {"metric": words("euclidean", "sqeuclidean")},
    "DecoderMaskedMultiHeadAttention": {"num_heads": POSITIVE},
    "DynamicQuantizeLSTM": LAYERS,
    "FusedMatMulActivation": {
        "activation": words(
            *("Relu", "Tanh", "Sigmoid", "LeakyRelu", "HardSigmoid", "Elu", "Softplus", "Selu"),
            *("ThresholdedRelu", "Softmax"),
        )
    },
    "RelativePositionBias": {"max_distance": POSITIVE},
    "CausalConvWithState": {
        "activation": words("none", "silu", "swish"),
        "dilation": POSITIVE,
        "channels_last": SWITCH,
    },
    "GatedRMSNorm": {"activation": words("silu", "swish", "sigmoid")},
    "LinearAttention": {
        "q_num_heads": POSITIVE,
        "kv_num_heads": POSITIVE,
        "update_rule": words("linear", "gated", "delta", "gated_delta"),
    },
    "MRotaryEmbedding": {"mrope_layout": SWITCH},
    "MoE": _EXPERTS,
    "QMoE": {
        **_EXPERTS,
        "expert_weight_bits": among(2, 3, 4, 8),
        "quant_type": words("int", "fp4", "nvfp4", "fp8", "wfp4afp8"),
    },
    "MatMulBnb4": {"quant_type": SWITCH, "block_size": POSITIVE, "K": POSITIVE, "N": POSITIVE},
    **{name: {"auto_pad": _PAD} for name in ("QLinearAveragePool", "QLinearConv", "NhwcMaxPool")},
    "Pad": {"mode": words("constant", "reflect", "edge")},
    "QLinearSoftmax": {"opset": POSITIVE},
}


def _names() -> list[str]:
    return [line.split()[0] for line in TEXT.splitlines() if not line.startswith(" ")]


OPERATORS = tuple(Operator(f"com.microsoft.{name}", _VALUES.get(name, {})) for name in _names())
