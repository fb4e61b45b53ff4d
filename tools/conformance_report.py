"""Tables of conformance.py's outcomes, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from conformance_cases import KINDS, Outcome

_REFUSED = """\
## What is refused

A node must be as onnx's schema and the operator's record (`clinfer/operators`) have it: attributes
of the schema's types with one of their words or a number in range, inputs of types that go
together, operands whose sizes fit. `ModelError` or `ShapeError` says so when a model is read,
`ShapeError` when a run binds the sizes; it names node, operand, what was expected and what was
found. The measure is ONNX Runtime: what it runs is run (a scale of one element repeats, axes that
a reduction or Squeeze names twice count once). Two things differ: an unknown word is refused
everywhere, where ONNX Runtime takes an unknown `reduction` for none; a Pad that reflects more than
there is goes on reflecting, as in NumPy. `tools/edges.py` tries every operator at its edges (sizes
of 0, 1, one less and one more, special values, other element types) beside ONNX Runtime; its
`EXPECTED` lists where ONNX Runtime differs from the specification or from itself, and clinfer keeps
to the specification: Concat takes no empty input of another shape, a loss or GroupNormalization
broadcasts nothing, the mean of nothing is NaN, a NaN reaches every maximum.

""".splitlines()


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """A line per kind of case, and one for all."""
    lines = [
        "| cases | all | passed | of these all on the device | with host steps | failed |",
        "|---|---|---|---|---|---|",
    ]
    for kind in (*KINDS, "together"):
        some = [o for o in outcomes if kind in (o.kind, "together")]
        passed = sum(o.status == "passed" for o in some)
        device = sum(o.on_device for o in some)
        counts = (len(some), passed, device, passed - device, len(some) - passed)
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    return lines


def by_operator(outcomes: Sequence[Outcome]) -> list[str]:
    """How each operator runs, from the cases that have it in their model."""
    cases: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        for operator in outcome.operators:
            cases[operator].append(outcome)
    lines = ["| operator | runs on | cases | passed | all on the device |", "|---|---|---|---|---|"]
    for operator, some in sorted(cases.items()):
        passed = [o for o in some if o.status == "passed"]
        counts = (len(some), len(passed), sum(o.on_device for o in some))
        lines.append(
            f"| {operator} | {_place(operator, passed)} | {' | '.join(map(str, counts))} |"
        )
    return lines


def _place(operator: str, passed: Sequence[Outcome]) -> str:
    """Where an operator ran in the cases that passed."""
    on_host = sum(operator in o.host for o in passed)
    alone = [o for o in passed if o.operators == (operator,)]
    if not passed:
        return "-"
    if not on_host and alone and not any(o.on_device for o in alone):
        return "definition, in part on the host"
    if not on_host:
        return "device"
    return "host" if on_host == len(passed) else "device; some forms host"


def document(outcomes: Sequence[Outcome], device: str, version: str) -> str:
    """The text of docs/operators.md."""
    failed = [o for o in outcomes if o.status != "passed"]
    lines = [
        "# Operators",
        "",
        f"The backend test cases of ONNX {version}, run with",
        f"`python tools/conformance.py --device {device} --write`. An operator without a kernel",
        "runs as its ONNX definition where it has one, else as a host step with onnx's reference",
        "implementation; `clinfer explain` lists a model's host steps and why they are there.",
        "",
        *summary(outcomes),
        "",
        *_REFUSED,
        "## By operator",
        "",
        "`device`: kernels, or views that cost nothing; `host`: host steps; `definition`: the ONNX",
        "function, of which some steps are on the host. A case counts for each",
        "operator in its model: one operator's host step keeps the others' cases from being all on",
        "the device.",
        "",
        *by_operator(outcomes),
        "",
        "## Cases that fail",
        "",
        "Bernoulli draws random numbers, which no two implementations share; Gradient belongs to",
        "training.",
        "",
        *(f"- `{o.name}` ({o.status}): {_shortened(o.message)}" for o in failed),
    ]
    return "\n".join(lines) + "\n"


def _shortened(message: str) -> str:
    """The start of a message, without the numbers that differ from run to run."""
    return message.split(" Mismatch")[0].replace("|", "/").replace("`", "'")[:160]
