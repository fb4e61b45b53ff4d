"""Memory of runs whose sizes come late."""

from __future__ import annotations

import numpy as np

import guards
from clinfer.device import late_rows
from clinfer.device.player import ALIGNMENT

Pool = type("Pool", (late_rows.Pool,), guards.UNGUARDED_POOL)


def test_blocks_have_room_from_where_they_are_aligned():
    pool = Pool()
    rng = np.random.default_rng(1)
    for run in range(4):
        blocks = []
        for nbytes in rng.integers(0, 20_000, 40).tolist():
            block = pool.take(nbytes)
            assert nbytes <= block.room
            assert block.address % ALIGNMENT == 0
            start = block.address - block.memory.ctypes.data
            assert start + block.room <= block.memory.nbytes
            blocks.append(block)
        assert len({block.address for block in blocks}) == len(blocks)
        for block in blocks[run:]:
            pool.give(block)
        pool.end_run()


def test_a_block_is_used_again_and_goes_when_nobody_wants_it():
    pool = Pool()
    block = pool.take(1000)
    pool.give(block)
    assert pool.take(990) is block
    pool.give(block)
    for _ in range(3):
        pool.end_run()
    assert pool.take(1000) is not block
