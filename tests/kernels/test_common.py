"""What stands in front of a kernel: its attributes and the helpers it calls."""

from __future__ import annotations

import pytest

from clinfer_kernels.common import kernel_head, with_helpers
from clinfer_kernels.spec import Target

HINT = "intel_vec_len_hint(1)"


@pytest.mark.parametrize(
    ("dialect", "group", "marked"),
    [("intel_cpu", 1, True), ("intel_cpu", 64, False), ("pocl", 1, False), ("generic", 1, False)],
)
def test_single_items_are_marked_for_intels_cpu_compiler_only(dialect, group, marked):
    body = f"{kernel_head('copy', (group,))}__global float* x) {{ x[1] = x[0]; }}"
    assert (HINT in with_helpers(body, Target(dialect=dialect))) == marked
