"""The command line: `clinfer COMMAND ...`, or `python -m clinfer COMMAND ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

FAILED = 1
UNTRUSTED = 5
INTERRUPTED = 130
_STREAMS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 5 not signed by a trusted key, 130 interrupted,
    143 terminated; commands may have more. What fails says why in one line on stderr, and with
    --json also in a document on stdout.
    """
    from clinfer.boundary import as_ours
    from clinfer.cli.output import Failure, fail
    from clinfer.cli.signals import terminable
    from clinfer.errors import ClinferError, UntrustedError

    given = sys.argv[1:] if argv is None else list(argv)
    _open_standard_streams()
    try:
        with terminable():
            code = _run(given)
            sys.stdout.flush()
            return code
    except ClinferError as error:
        code = UNTRUSTED if isinstance(error, UntrustedError) else FAILED
        return fail(given, Failure(type(error).__name__, str(error), code))
    except KeyboardInterrupt:
        return fail(given, Failure("Interrupted", "interrupted", INTERRUPTED))
    except SystemExit as end:
        if end.code:
            fail(given, Failure.of_exit(end), told=True)
        raise
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except OSError as error:
        _discard_output()
        return fail(given, Failure("OSError", _reason(error), FAILED))
    except Exception as error:
        from clinfer.log import Log

        Log("clinfer").debug("%s", _traceback(error))
        ours = as_ours(error, "the command")
        return fail(given, Failure(type(ours).__name__, str(ours), FAILED))


def _run(given: list[str]) -> int:
    from clinfer.cli.parser import make_parser
    from clinfer.log import follow_environment

    follow_environment()
    command = [word for word in given if not word.startswith("-")][:1]
    arguments = make_parser(command).parse_args(given)
    device = getattr(arguments, "device", None) or ""
    if device.lower().startswith("intel:"):
        from clinfer.cli.simulated import run_absent

        return run_absent(given, arguments, device)
    code: int = arguments.run(arguments)
    return code


def _reason(error: OSError) -> str:
    """What the system says and about which file, without Python's form of it."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def _traceback(error: BaseException) -> str:
    """Where an error comes from, for the log."""
    from traceback import format_exception

    return "".join(format_exception(error))


def _open_standard_streams() -> None:
    """A stream that is closed leads nowhere; no other file takes its place and what is printed.

    What the terminal's encoding does not have is printed as an escape.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < _STREAMS:  # it takes the lowest free one
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Lets the interpreter end quietly where nobody takes what is left to be printed."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
