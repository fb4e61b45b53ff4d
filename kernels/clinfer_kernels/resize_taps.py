"""Where an interpolation reads, and with what weights: C statements per resized axis.

For axis k of the nest (output index ik, sizes nk and mk) they declare at<k>_<t>, the offset of tap t
in elements, and w<k>_<t>, its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels.specs import ResizeSpec

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}

_ROUNDING = {
    "round_prefer_floor": "(int)ceil({c} - 0.5f)",
    "round_prefer_ceil": "(int)floor({c} + 0.5f)",
    "floor": "(int)floor({c})",
    "ceil": "(int)ceil({c})",
}

# Coordinate of output index {i}; {s}: scale, {n}: output size, {m}: input size.
_COORDINATES = {
    "half_pixel": "({i} + 0.5f) / {s} - 0.5f",
    "pytorch_half_pixel": "{n} > 1 ? ({i} + 0.5f) / {s} - 0.5f : 0.0f",
    "align_corners": "{n} > 1 ? {i} * (float)({m} - 1) / (float)({n} - 1) : 0.0f",
    "asymmetric": "{i} / {s}",
    "half_pixel_symmetric": ("0.5f * {m} * (1.0f - {n} / ({s} * {m})) + ({i} + 0.5f) / {s} - 0.5f"),
}


def axis_lines(spec: ResizeSpec, k: int, number: int) -> list[str]:
    """The statements for axis k of the nest, the spec's resized axis `number`."""
    given = spec.scales[number]
    scale = f"((float)n{k} / (float)m{k})" if given is None else f"{_float(given)}"
    coordinate = _COORDINATES[spec.coordinates].format(i=f"i{k}", s=scale, n=f"n{k}", m=f"m{k}")
    lines = [f"const float c{k} = {coordinate};"]
    if spec.mode == "nearest":
        place = _ROUNDING[spec.rounding].format(c=f"c{k}")
        return [*lines, f"const int at{k}_0 = {_clamped(place, k)};"]
    lines.append(f"const int b{k} = (int)floor(c{k});")
    lines.append(f"const float f{k} = c{k} - b{k};")
    if spec.mode == "linear":
        lines.append(f"const float w{k}_0 = 1.0f - f{k};")
        lines.append(f"const float w{k}_1 = f{k};")
    else:
        lines += _cubic(spec, k)
    first = 0 if spec.mode == "linear" else -1
    for tap in range(TAPS[spec.mode]):
        lines.append(f"const int at{k}_{tap} = {_clamped(f'b{k} + {first + tap}', k)};")
    return lines


def weight(mode: str, axes: Sequence[int], taps: Sequence[int]) -> str:
    """The weight of a combination of taps, one per resized axis."""
    if mode == "nearest":
        return "1.0f"
    factors = " * ".join(f"w{k}_{t}" for k, t in zip(axes, taps, strict=True))
    return f"({factors})"


def _cubic(spec: ResizeSpec, k: int) -> list[str]:
    """Keys' weights with coefficient a; taps outside count nothing where the spec excludes them."""
    a = _float(spec.cubic_a)
    near = f"(({a} + 2.0f) * {{d}} - ({a} + 3.0f)) * {{d}} * {{d}} + 1.0f"
    far = f"(({a} * {{d}} - 5.0f * {a}) * {{d}} + 8.0f * {a}) * {{d}} - 4.0f * {a}"
    distances = (f"(f{k} + 1.0f)", f"f{k}", f"(1.0f - f{k})", f"(2.0f - f{k})")
    lines: list[str] = []
    for tap, distance in enumerate(distances):
        text = (near if tap in (1, 2) else far).format(d=distance)
        if spec.exclude_outside:
            place = f"b{k} + {tap - 1}"
            text = f"{place} < 0 || {place} >= m{k} ? 0.0f : {text}"
        name = "v" if spec.exclude_outside else "w"
        lines.append(f"const float {name}{k}_{tap} = {text};")
    if spec.exclude_outside:
        total = " + ".join(f"v{k}_{t}" for t in range(4))
        lines.append(f"const float u{k} = 1.0f / ({total});")
        lines += [f"const float w{k}_{t} = v{k}_{t} * u{k};" for t in range(4)]
    return lines


def _clamped(place: str, k: int) -> str:
    return f"clamp({place}, 0, m{k} - 1) * x0_s{k}"


def _float(value: float) -> str:
    return f"({value!r}f)" if value < 0 else f"{value!r}f"
