"""Makes every call of OpenCL fail in turn, in all that happens to a model, on each kind of device.

    python tools/inject_faults.py                       # every call, codes in turn
    python tools/inject_faults.py --every-code          # every call, every code: hours
    python tools/inject_faults.py --quick               # one call of each place, as in the tests
    python tools/inject_faults.py --device GPU --operation Warm -v

PoCL is the driver, as the CPU and presented as a GPU. After each fault: clinfer's error or the
right results, the right results when asked again, and no handle, descriptor or thread more than
before.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

from driver_faults import Driver, Fault, Point
from fault_operations import (
    DEVICES,
    Operation,
    Setting,
    Sweep,
    digits,
    of_each_place,
    of_every_call,
    operations,
    with_every_code,
)


def main() -> int:
    """The command line; exit status 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, action="append", help="all, if not given")
    parser.add_argument("--operation", action="append", help="all, if not given")
    parser.add_argument("--quick", action="store_true", help="one call of each place, one code")
    parser.add_argument("--every-code", action="store_true", help="every call, every code")
    parser.add_argument("-v", "--verbose", action="store_true", help="print faults as they come")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    say = print if args.verbose else (lambda _: None)
    wrong: list[str] = []
    choose = with_every_code if args.every_code else of_every_call
    with Driver() as driver:
        for device in args.device or DEVICES:
            setting = digits(device)
            if args.quick:
                choose = partial(of_each_place, seen=set())
            for kind in operations(device):
                if not args.operation or kind.__name__ in args.operation:
                    wrong += _swept(driver, setting, kind, choose, say)
    print("\n".join(wrong))
    return 1 if wrong else 0


def _swept(
    driver: Driver,
    setting: Setting,
    kind: type[Operation],
    choose: Callable[[list[Point]], Iterator[Fault]],
    say: Callable[[str], None],
) -> list[str]:
    start = time.monotonic()
    with setting.as_device():
        sweep = Sweep(driver, kind(setting))
        found = sweep.run(choose(sweep.points), say)
    print(
        f"{setting.device}, {kind.__name__}: {len(sweep.points)} calls, {sweep.faults} faults, "
        f"{sweep.moved} of them elsewhere, {len(found)} wrong, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return [f"{setting.device}, {kind.__name__}: {line}" for line in found]


if __name__ == "__main__":
    sys.exit(main())
