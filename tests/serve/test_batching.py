"""The queue: what is gathered, what is refused, whose error it is, what of the cancelled stays."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from clinfer.errors import InputError
from clinfer.serve.batching import Rules, Scheduler
from clinfer.serve.refusals import TIMEOUT, UNAVAILABLE, RefusedError

GATHERS = Rules(max_batch=8, gathers=True, max_queue=100)


class Device:
    """y = 2x, noting the samples of each run; runs wait while `gate` is closed."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, inputs):
        assert self.gate.wait(60)
        self.ran.append(len(inputs[0]))
        if np.any(inputs[0] < 0):
            raise InputError("a negative value")
        return [inputs[0] * 2]


class Nobody:
    def ran(self, samples, requests, waited, seconds):
        pass


@pytest.fixture
def device():
    return Device()


def rows(number, samples=1, width=3):
    return [np.full((samples, width), number, np.float32)]


def played(runs, rules, play):
    """What `play` gives, a coroutine function that is handed the scheduler."""

    async def whole():
        scheduler = Scheduler(runs, rules, Nobody(), "test")
        try:
            return await asyncio.wait_for(play(scheduler), 60)
        finally:
            await scheduler.close()

    return asyncio.run(whole())


async def begun(scheduler, device):
    """Closes the gate behind a first request, which an instance has taken."""
    device.gate.clear()
    first = asyncio.ensure_future(scheduler.submit(rows(1), 60))
    for _ in range(2):
        await asyncio.sleep(0)
    assert scheduler.waiting == 0
    return first


def test_what_waits_while_a_run_is_on_runs_as_one(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        more = [asyncio.ensure_future(scheduler.submit(rows(n, 1 + n % 2), 60)) for n in range(5)]
        await asyncio.sleep(0)
        device.gate.set()
        return await asyncio.gather(first, *more)

    _, *answers = played([device], GATHERS, play)
    assert device.ran == [1, 7]
    for number, (answer,) in enumerate(answers):
        assert np.array_equal(answer, rows(2 * number, 1 + number % 2)[0])


def test_a_batch_is_never_larger_than_said_and_only_of_one_shape(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        shapes = [(5, 3), (4, 3), (1, 7), (3, 3), (2, 7)]
        more = [asyncio.ensure_future(scheduler.submit(rows(1, *s), 60)) for s in shapes]
        await asyncio.sleep(0)
        device.gate.set()
        return await asyncio.gather(first, *more)

    answers = played([device], GATHERS, play)
    assert device.ran == [1, 8, 4, 3]
    assert [a.shape for (a,) in answers[1:]] == [(5, 3), (4, 3), (1, 7), (3, 3), (2, 7)]


def test_a_delay_waits_for_more_and_no_longer_than_that(device):
    async def play(scheduler):
        return await asyncio.gather(*(scheduler.submit(rows(n), 60) for n in range(3)))

    played([device], GATHERS._replace(delay=0.05), play)
    assert device.ran == [3]


def test_a_full_batch_does_not_wait_for_the_delay(device):
    async def play(scheduler):
        return await asyncio.gather(*(scheduler.submit(rows(n), 60) for n in range(8)))

    played([device], GATHERS._replace(delay=3600), play)
    assert device.ran == [8]


def test_the_error_is_its_own_requests(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        more = [asyncio.ensure_future(scheduler.submit(rows(n), 60)) for n in (1, -1, 2)]
        await asyncio.sleep(0)
        device.gate.set()
        return await asyncio.gather(first, *more, return_exceptions=True)

    _, one, fault, two = played([device], GATHERS, play)
    assert one[0][0, 0] == 2
    assert two[0][0, 0] == 4
    assert isinstance(fault, InputError)


def test_a_full_queue_refuses_and_counts_nobody_who_has_left(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        more = [asyncio.ensure_future(scheduler.submit(rows(n), 60)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await scheduler.submit(rows(9), 60)
        assert refused.value.kind is UNAVAILABLE
        more[0].cancel()
        await asyncio.sleep(0)
        more.append(asyncio.ensure_future(scheduler.submit(rows(5), 60)))
        await asyncio.sleep(0)
        device.gate.set()
        return await asyncio.gather(first, *more[1:])

    answers = played([device], GATHERS._replace(max_queue=3), play)
    assert [a[0, 0] for (a,) in answers] == [2, 2, 4, 10]
    assert sum(device.ran) == 4


def test_whoever_waits_too_long_is_told_and_is_not_run(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        with pytest.raises(RefusedError) as refused:
            await scheduler.submit(rows(9), 0.01)
        assert refused.value.kind is TIMEOUT
        device.gate.set()
        return await first

    played([device], GATHERS, play)
    assert device.ran == [1]


def test_instances_run_side_by_side():
    met = threading.Barrier(2, timeout=60)

    def run(inputs):
        met.wait()
        return inputs

    async def play(scheduler):
        return await asyncio.gather(*(scheduler.submit(rows(n), 60) for n in range(2)))

    answers = played([run, run], Rules(), play)
    assert [a[0, 0] for (a,) in answers] == [0, 1]


def test_samples_are_limited_and_the_same_in_each_input(device):
    async def play(scheduler):
        with pytest.raises(InputError, match="9 samples in a request, 1 to 8"):
            await scheduler.submit(rows(1, 9), 60)
        with pytest.raises(InputError, match="first sizes differ"):
            await scheduler.submit(rows(1, 2) + rows(1, 3), 60)

    played([device], GATHERS, play)


def test_what_waits_at_the_end_is_still_run(device):
    async def play(scheduler):
        first = await begun(scheduler, device)
        more = asyncio.ensure_future(scheduler.submit(rows(3), 60))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(scheduler.close())
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="unloaded"):
            await scheduler.submit(rows(4), 60)
        device.gate.set()
        await closing
        return await asyncio.gather(first, more)

    answers = played([device], GATHERS, play)
    assert [a[0, 0] for (a,) in answers] == [2, 6]
    assert not [t for t in threading.enumerate() if t.name.startswith("clinfer-serve-test")]
