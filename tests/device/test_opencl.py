"""The drivers' variables: set while drivers are loaded, and what they must not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import json, os
from clinfer.device import discover
facts = [
    [sorted(fact) if isinstance(fact, frozenset) else str(fact) for fact in info]
    for info in discover.list_devices()
]
print(json.dumps([facts, os.environ.get("HWLOC_COMPONENTS")]))
"""


def look(**variables):
    environment = {k: v for k, v in os.environ.items() if k != "HWLOC_COMPONENTS"} | variables
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("chosen", ["x86", "linux", "-x86"])
def test_how_hwloc_looks_at_the_processor_changes_no_device_and_no_users_setting(chosen):
    ours, left_behind = look()
    theirs, kept = look(HWLOC_COMPONENTS=chosen)
    assert left_behind is None
    assert kept == chosen
    assert ours == theirs
    assert ours
