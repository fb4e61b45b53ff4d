"""The command line: `clinfer COMMAND ...`, or `python -m clinfer COMMAND ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

FAILED = 1
UNTRUSTED = 5
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 5 not signed by a trusted key, 130 interrupted;
    commands may have more. What fails says why in one line on stderr.
    """
    from clinfer.errors import ClinferError, UntrustedError

    given = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except ClinferError as error:
        print(f"clinfer: {error}", file=sys.stderr)
        return UNTRUSTED if isinstance(error, UntrustedError) else FAILED
    except KeyboardInterrupt:
        print("clinfer: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except OSError as error:
        _discard_output()
        print(f"clinfer: {_reason(error)}", file=sys.stderr)
        return FAILED


def _run(given: list[str]) -> int:
    from clinfer.cli.parser import make_parser
    from clinfer.log import follow_environment

    follow_environment()
    arguments = make_parser().parse_args(given)
    device = getattr(arguments, "device", None) or ""
    if device.lower().startswith("intel:"):
        from clinfer.cli.simulated import run_simulated

        return run_simulated(given, device, getattr(arguments, "device_lock", None))
    code: int = arguments.run(arguments)
    return code


def _reason(error: OSError) -> str:
    """What the system says and about which file, without Python's form of it."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def _discard_output() -> None:
    """Lets the interpreter end quietly where nobody takes what is left to be printed."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
