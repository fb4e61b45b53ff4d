"""The command line: `clinfer COMMAND ...`, or `python -m clinfer COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    from clinfer.cli.parser import make_parser
    from clinfer.errors import ClinferError

    arguments = make_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except ClinferError as error:
        print(f"clinfer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clinfer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
