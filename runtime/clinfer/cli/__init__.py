"""The command line: `clinfer COMMAND ...`, or `python -m clinfer COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

UNTRUSTED = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 5 not signed by a trusted key, 130 interrupted;
    commands may have more.
    """
    from clinfer.cli.parser import make_parser
    from clinfer.errors import ClinferError, UntrustedError

    given = sys.argv[1:] if argv is None else list(argv)
    arguments = make_parser().parse_args(given)
    try:
        device = getattr(arguments, "device", None) or ""
        if device.lower().startswith("intel:"):
            from clinfer.cli.simulated import run_simulated

            return run_simulated(given, device)
        code: int = arguments.run(arguments)
        return code
    except ClinferError as error:
        print(f"clinfer: {error}", file=sys.stderr)
        return UNTRUSTED if isinstance(error, UntrustedError) else 1
    except KeyboardInterrupt:
        print("clinfer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
