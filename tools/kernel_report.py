"""What tools/check_kernels.py found, for people: lines for a terminal, tables for docs/."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_units import ORIGINS
from kernel_usage import Result

BEGIN = "<!-- tables: written by tools/check_kernels.py -->"
END = "<!-- end of tables -->"
_WORST = 12


@dataclass(frozen=True)
class Report:
    """The results of one GPU."""

    name: str
    title: str
    compiler: str
    results: tuple[Result, ...]

    def faults(self, most_spilled: int | None = None) -> list[str]:
        """A line for each fault, with the kernel and the GPU."""
        lines = []
        for result in self.results:
            found = [*result.faults]
            spilled = 0 if result.usage is None else result.usage.spilled
            if most_spilled is not None and spilled > most_spilled:
                found.append(f"spills {spilled} bytes; at most {most_spilled} are allowed")
            lines += [f"{self.title}: {result.unit.name}: {fault}" for fault in found]
        return lines

    def summary(self) -> str:
        """One line for people."""
        spilling = sum(_spilled(result) > 0 for result in self.results)
        return (
            f"{len(self.results)} kernels, {len(self.faults())} faults, {spilling} spill "
            f"({self.compiler})"
        )


def document(reports: Sequence[Report], text: str) -> str:
    """The document with new tables. Raises `ValueError` where it has no place for them."""
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"the document has no lines {BEGIN!r} and {END!r}")
    parts = [_overview(reports), _worst(reports), _families(reports)]
    return head + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + tail


def _overview(reports: Sequence[Report]) -> str:
    head = ("GPU", "compiled by", *(f"'{origin}'" for origin in ORIGINS), "faults", "spill")
    rows = [
        (
            report.title,
            report.compiler,
            *(str(sum(r.unit.origin == origin for r in report.results)) for origin in ORIGINS),
            str(len(report.faults())),
            str(sum(_spilled(r) > 0 for r in report.results)),
        )
        for report in reports
    ]
    return "### Kernels compiled\n\n" + _table(head, rows)


def _worst(reports: Sequence[Report]) -> str:
    head = ("GPU", "kernel", "from", "group", "spilled", "scratch", "registers", "local", "binary")
    rows = []
    for report in reports:
        bad = sorted(report.results, key=lambda r: (-_spilled(r), -_scratch(r), r.unit.name))
        shown = [r for r in bad if _spilled(r) or _scratch(r)][:_WORST]
        rows += [(report.name, *_worst_row(result)) for result in shown]
    title = f"### Worst: spilled registers and scratch, at most {_WORST} per GPU\n\n"
    return title + (_table(head, rows) if rows else "None.")


def _worst_row(result: Result) -> tuple[str, ...]:
    usage = result.usage
    assert usage is not None
    return (
        f"`{result.unit.name}`",
        result.unit.origin,
        "x".join(str(n) for n in result.unit.group if n > 1) or "1",
        _number(usage.spilled),
        _number(usage.scratch),
        "-" if usage.registers is None else str(usage.registers),
        _number(usage.local),
        _number(usage.binary),
    )


def _families(reports: Sequence[Report]) -> str:
    head = (
        "family",
        "GPU",
        "kernels",
        "registers",
        "spill",
        "scratch",
        "local",
        "occupancy",
        "KiB",
    )
    names = sorted({r.unit.family for report in reports for r in report.results})
    rows = []
    for family in names:
        for report in reports:
            results = [r for r in report.results if r.unit.family == family and r.usage]
            if results:
                rows.append((family, report.name, *_family_row(results)))
    return "### By family\n\n" + _table(head, rows)


def _family_row(results: Sequence[Result]) -> tuple[str, ...]:
    usages = [r.usage for r in results if r.usage is not None]
    return (
        str(len(usages)),
        _range(u.registers for u in usages),
        str(sum(u.spilled > 0 for u in usages)),
        str(sum(u.scratch > 0 for u in usages)),
        _number(max(u.local for u in usages)),
        _range(u.occupancy for u in usages),
        f"{sum(u.binary for u in usages) / len(usages) / 1024:.0f}",
    )


def _spilled(result: Result) -> int:
    return 0 if result.usage is None else result.usage.spilled


def _scratch(result: Result) -> int:
    return 0 if result.usage is None else result.usage.scratch


def _range(values: Iterable[int | None]) -> str:
    """Smallest, median and greatest."""
    known = sorted(v for v in values if v is not None)
    return f"{known[0]} / {known[len(known) // 2]} / {known[-1]}" if known else "-"


def _number(value: int) -> str:
    return f"{value:,}" if value else "0"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
