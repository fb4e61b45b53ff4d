"""Layers with a state instead of a cache: causal convolutions, linear attention, their gates."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_MOST = 2**31 - 1


def _causal_conv(make: Maker) -> Sequence[Value | None]:
    """Each channel by itself, over what the state holds and the new positions.

    The state is the last (k - 1) * dilation of them.
    """
    for name in ("state_window", "state_update_capacity", "state_length", "input_channels"):
        make.only(name, 0)
    make.only("ndim", 1)
    make.only("input_channel_offset", 0)
    make.only("state_channels_last", -1)
    channels = make.size(1, 0, "the number of channels")
    dilation = make.attr("dilation", 1)
    held = (make.size(1, 2, "the size of the kernel") - 1) * dilation
    x, past, behind = make.x(0), make.input(3), None
    if make.attr("channels_last", 0):
        behind = make.slice(make("Shape", x), 0, 2, _MOST)
        x = make.transpose(make.reshape(x, 0, 0, channels), 0, 2, 1)
        if past is not None:
            past = make.transpose(make.reshape(past, 0, 0, channels), 0, 2, 1)
    if past is None:
        past = _zeros(make, x, make.dim(x, 0), make.constant([channels, held]))
    whole = make("Concat", past, x, axis=2)
    result = make("Conv", whole, make.x(1), make.input(2), group=channels, dilations=[dilation])
    if make.attr("activation", "none") != "none":
        result = make("Swish", result, alpha=1.0)
    length = make.dim(whole, 2)
    start = make("Sub", length, make.constant([held]))
    state = make("Slice", whole, start, length, make.constant([2]))
    if behind is None:
        return result, state
    found = []
    for part in (result, state):
        turned = make.transpose(part, 0, 2, 1)
        sizes = make("Concat", make.slice(make("Shape", turned), 0, 0, 2), behind, axis=0)
        found.append(make("Reshape", turned, sizes))
    return found


def _zeros(make: Maker, like: Value, *sizes: Value) -> Value:
    shape = make("Concat", *sizes, axis=0)
    return make("CastLike", make("Expand", make.constant(0, "float32"), shape), like)


def _linear_attention(make: Maker) -> Sequence[Value | None]:
    """ONNX's, where queries and keys of fewer heads than the values are repeated."""
    make.only("state_window", 0)
    queries, heads = make.attr("q_num_heads"), make.attr("kv_num_heads")
    size = make.size(0, 2, "the width of the queries") // queries
    keys = make.size(1, 2, "the width of the keys") // size
    query = _of_heads(make, make.x(0), queries, max(queries, heads), size)
    key = _of_heads(make, make.x(1), keys, heads, size)
    attrs = {
        "q_num_heads": max(queries, heads),
        "kv_num_heads": heads,
        "scale": make.attr("scale", 0.0) or size**-0.5,
        "update_rule": make.attr("update_rule", "gated_delta"),
        "chunk_size": make.attr("chunk_size", 64),
    }
    state, dtype = make.input(3), make.x(0).dtype
    other = None if state is None or state.dtype == dtype else state.dtype
    rest = [make.input(index) for index in (2, 3, 4, 5)]
    if other is not None and dtype is not None:
        rest[1] = make.cast(make.x(3), dtype)
    result, present = make.several("LinearAttention", 2, query, key, *rest, **attrs)
    return result, present if other is None else make.cast(present, other)


def _of_heads(make: Maker, x: Value, heads: int, wanted: int, size: int) -> Value:
    """[B, T, heads * size] with every head repeated, [B, T, wanted * size]."""
    if heads == wanted:
        return x
    if wanted % heads:
        raise make.error(
            f"numbers of heads that are multiples of each other expected, found {heads} and "
            f"{wanted}"
        )
    column = make.reshape(x, 0, 0, heads, 1, size)
    wide = make("Expand", column, make.constant([1, 1, 1, wanted // heads, 1]))
    return make.reshape(wide, 0, 0, wanted * size)


def _attention_gate(make: Maker) -> Sequence[Value | None]:
    """decay_scale * softplus(a + dt_bias) in float32, and sigmoid(b)."""
    a = make.cast(make.x(0), "float32")
    bent = make("Softplus", make("Add", a, make.x(1)))
    decay = make("CastLike", make("Mul", bent, make.x(2)), make.x(0))
    b = make.input(3)
    if b is None:
        return decay, None
    return decay, make("CastLike", make("Sigmoid", make.cast(b, "float32")), make.x(0))


def _gated_rms_norm(make: Maker) -> Value:
    """Groups of the last axis by their root of mean squares, times scale and activated gate."""
    size = make.size(1, 0, "the length of the scale")
    shape = make("Concat", make("Shape", make.x(0), end=-1), make.constant([-1, size]), axis=0)
    x, gate = (make("Reshape", make.cast(make.x(index), "float32"), shape) for index in (0, 2))
    scale = make.cast(make.x(1), "float32")
    epsilon = make.attr("epsilon", 1e-6)
    normed = make("RMSNormalization", x, scale, axis=-1, epsilon=epsilon)
    bent = make("Sigmoid", gate)
    if make.attr("activation", "silu") != "sigmoid":
        bent = make("Mul", gate, bent)
    result = make("Reshape", make("Mul", normed, bent), make("Shape", make.x(0)))
    return make("CastLike", result, make.x(0))


def _gated_add(make: Maker) -> Value:
    make.refuse(gate_weight=3)
    return make("Add", make.x(0), make("Mul", make.x(1), make.x(2)))


def _swiglu(make: Maker) -> Value:
    """gate * sigmoid(alpha * gate) * (up + beta), both limited; packed where there is no up."""
    gate, up = make.x(0), make.input(1)
    if up is None:
        half = make.size(0, -1, "the width of both halves") // 2
        gate, up = make.slice(gate, -1, 0, half), make.slice(gate, -1, half, _MOST)
    limit = make.attr("limit", 0.0)
    if limit > 0:
        low, high = (make.like(sign * limit, make.x(0)) for sign in (-1, 1))
        gate, up = make("Min", gate, high), make("Clip", up, low, high)
    beta = make.attr("activation_beta", 0.0)
    if beta:
        up = make("Add", up, make.like(beta, make.x(0)))
    return make("Mul", make("Swish", gate, alpha=make.attr("activation_alpha", 1.0)), up)


def _scaled_silu(make: Maker) -> Value:
    scale = make.input(1)
    factor = make.like(make.attr("alpha", 1.0), make.x(0))
    if scale is not None:
        factor = make("CastLike", make.reshape(scale), make.x(0))
    return make("Swish", make("Mul", make.x(0), factor), alpha=1.0)


def _sections_rotary(make: Maker) -> Value:
    """RotaryEmbedding with a row of cosines and sines for each token.

    Its columns are those of three places (time, height, width), in three parts or in turn.
    """
    make.only("is_packed_batching", 0)
    make.only("scale", 1.0, 0.0)
    sections = list(make.attr("mrope_section"))
    half = make.size(2, 1, "the width of the cosines")
    if len(sections) != 3 or sum(sections) != half:
        raise make.error(
            f"attribute 'mrope_section': three sizes with the sum {half} expected, found {sections}"
        )
    stream = [0] * half  # whose place counts for each column
    if make.attr("mrope_layout", 0):
        for number in (1, 2):
            for column in range(number, min(3 * sections[number], half), 3):
                stream[column] = number
    else:
        stream = [number for number, size in enumerate(sections) for _ in range(size)]
    chosen = [make.constant([float(s == n) for s in stream], "float32") for n in range(3)]

    def table(index: int) -> Value:
        """[B, S, half] of the columns at each stream's places."""
        every = make("Gather", make.x(index), make.x(1))  # [3, B, S, half]
        parts = [
            make("Mul", make("Gather", every, make.constant(n)), make("CastLike", chosen[n], every))
            for n in range(3)
        ]
        return make.sum(*parts)

    rank = len(make.shape(0))
    heads, width = make.attr("num_heads", 0), make.attr("rotary_embedding_dim", 0)
    attrs = {"interleaved": make.attr("interleaved", 0), "rotary_embedding_dim": width}
    if rank == 3:
        attrs["num_heads"] = heads or make.size(0, 2, "the width of the input") // (2 * half)
    return make("RotaryEmbedding", make.x(0), table(2), table(3), **attrs)


RULES: dict[str, Rule] = {
    "CausalConvWithState": _causal_conv,
    "LinearAttention": _linear_attention,
    "LinearAttentionGate": _attention_gate,
    "GatedRMSNorm": _gated_rms_norm,
    "GatedAdd": _gated_add,
    "SwiGLU": _swiglu,
    "ScaledSiLU": _scaled_silu,
    "MRotaryEmbedding": _sections_rotary,
}
