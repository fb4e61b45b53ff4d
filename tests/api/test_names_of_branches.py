"""Dimensions of one name that only branches read: merged decoders, against ONNX Runtime."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnxruntime import InferenceSession

import clinfer

RNG = np.random.default_rng(5)

# As optimum merges a decoder and a decoder with a past: keys of the encoder's states are made in a
# first call, later ones give them back; `mask` is read by both.
MERGED = """<ir_version: 8, opset_import: ["": 17]>
merged (bool use_cache, float[B, 1, 4] x, float[B, N, 4] states, float[B, N, 4] past{mask_input}) =>
  (float[B, 1, 4] y, float[B, M, 4] present) {{
  y, present = If (use_cache) <
    then_branch = cached () => (float[B, 1, 4] a, float[B, K, 4] kept) {{
      turned = Transpose<perm = [0, 2, 1]> (past)
      scores = MatMul (x, turned)
      {masked}
      shares = Softmax (shown)
      a = MatMul (shares, past)
      kept = Identity (past)
    }},
    else_branch = first () => (float[B, 1, 4] b, float[B, L, 4] made) {{
      two = Constant<value = float {{2}}> ()
      made = Mul (states, two)
      turned2 = Transpose<perm = [0, 2, 1]> (made)
      scores2 = MatMul (x, turned2)
      {masked2}
      shares2 = Softmax (shown2)
      b = MatMul (shares2, made)
    }}>
}}"""
ALONE = MERGED.format(
    mask_input="", masked="shown = Identity (scores)", masked2="shown2 = Identity (scores2)"
)
MASKED = MERGED.format(
    mask_input=", float[B, 1, N] mask",
    masked="shown = Add (scores, mask)",
    masked2="shown2 = Add (scores2, mask)",
)


def inputs(text: str, use_cache: bool, states: int, past: int, mask: int) -> dict[str, Any]:
    found = {
        "use_cache": np.array(use_cache),
        "x": RNG.standard_normal((2, 1, 4), np.float32),
        "states": RNG.standard_normal((2, states, 4), np.float32),
        "past": RNG.standard_normal((2, past, 4), np.float32),
    }
    if text is MASKED:
        found["mask"] = RNG.standard_normal((2, 1, mask), np.float32)
    return found


# Whether there is a past, and the sizes of the states, the past and the mask.
CALLS = [(False, 7, 0, 7), (False, 7, 1, 7), (True, 7, 7, 7), (True, 0, 5, 5), (False, 3, 3, 3)]


@pytest.mark.parametrize("text", [ALONE, MASKED], ids=["alone", "masked"])
def test_a_merged_decoder_takes_an_empty_past(core, device, text, tmp_path):
    content = onnx.parser.parse_model(text).SerializeToString()
    peer = InferenceSession(content, providers=["CPUExecutionProvider"])
    model = core.compile_model(content, device, {"CACHE_DIR": str(tmp_path)})
    again = clinfer.Core().compile_model(content, device, {"CACHE_DIR": str(tmp_path)})
    forms = [model, again]
    if device == "CPU":
        blob = io.BytesIO()
        model.export_model(blob)
        forms.append(core.import_model(io.BytesIO(blob.getvalue()), device))
    for call in CALLS:
        given = inputs(text, *call)
        expected = peer.run(None, given)
        for form in forms:
            found = form(given)
            for number, wanted in enumerate(expected):
                assert found[number].shape == wanted.shape
                np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=1e-5)


def test_ports_have_the_names_of_the_file(core, device):
    content = onnx.parser.parse_model(MASKED).SerializeToString()
    model = core.read_model(content)
    shapes = [tuple(port.shape) for port in core.compile_model(model, device).inputs]
    assert shapes == [(), ("B", 1, 4), ("B", "N", 4), ("B", "N", 4), ("B", 1, "N")]
    model.reshape({"states": [2, 6, 4]})
    assert tuple(model.input("past").shape) == (2, 6, 4)
    fixed = core.compile_model(model, device)
    with pytest.raises(clinfer.InputError, match="past"):
        fixed(inputs(MASKED, False, 6, 0, 6))


def test_the_branch_taken_needs_one_size(core, device):
    model = core.compile_model(onnx.parser.parse_model(MASKED).SerializeToString(), device)
    with pytest.raises(clinfer.ClinferError, match=r"past.*'N'"):
        model(inputs(MASKED, True, 7, 3, 7))
    with pytest.raises(clinfer.ClinferError, match=r"states.*'N'"):
        model(inputs(MASKED, False, 3, 0, 7))
    given = inputs(MASKED, True, 9, 4, 4)
    flat = {**given, "past": given["past"][0]}
    with pytest.raises(clinfer.InputError, match="past") as error:
        model(flat)
    assert "~" not in str(error.value)
    assert model(given)[1].shape == (2, 4, 4)  # the states are not read


def test_limits_of_a_name_count_for_all_inputs(core, device):
    model = core.read_model(onnx.parser.parse_model(ALONE).SerializeToString())
    model.reshape({"states": ["B", (0, 8), 4]})
    compiled = core.compile_model(model, device)
    compiled(inputs(ALONE, False, 8, 0, 0))
    with pytest.raises(clinfer.ClinferError, match="from 0 to 8"):
        compiled(inputs(ALONE, False, 8, 9, 0))
