"""`clinfer explain`: what a device will do for a model, and why; nothing is built."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from clinfer.cli import common
from clinfer.cli.output import emit_json, size_text, table

HELP = "list a model's kernels, fused groups and host steps on a device"


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --device --shape --source --phases."""
    common.model_argument(parser)
    common.device_argument(parser)
    common.shape_argument(parser)
    parser.add_argument("--source", metavar="KERNEL", help="print that kernel's OpenCL C")
    parser.add_argument("--phase", metavar="NAME", help="print the graph after that phase")


def run(options: argparse.Namespace) -> int:
    """Prints the plan."""
    from clinfer.device.discover import open_device
    from clinfer.plugins.compiler import plan_model

    core = common.core(options)
    model = core.read_model(options.model)
    if options.shape:
        model.reshape(dict(options.shape))
    if options.phase:
        return _print_phase(model, options.phase)
    plan = plan_model(model, open_device(options.device))
    if options.source:
        return _print_source(plan, options.source)
    document = describe(plan)
    if options.json:
        emit_json(document)
        return 0
    table(document["steps"], ["step", "kind", "kernel", "computes"])
    print()
    for step in document["host_steps"]:
        print(f"host step: {step['computes']}: {step['reason']}")
    totals = document["totals"]
    print(
        f"{totals['launches']} launches of {totals['programs']} programs, "
        f"{totals['host_steps']} host steps, {totals['fused']} fused groups, "
        f"weights {size_text(totals['weight_bytes'])}, arena {totals['arena']}"
    )
    return 0


def describe(plan: Any) -> dict[str, Any]:
    """The plan as plain data."""
    from clinfer.lowering.binding import Sizes, bind_arena
    from clinfer.lowering.plan import LaunchStep

    steps = []
    for number, step in enumerate(plan.steps):
        launch = isinstance(step, LaunchStep)
        kernel = plan.programs[step.program].entry if launch else step.op.get("op", "")
        row = {"step": number, "kind": "launch" if launch else "host", "kernel": kernel}
        row["computes"] = step.label
        if launch:
            row["flops"] = str(step.flops)
        else:
            row["reason"] = step.reason
        steps.append(row)
    try:
        arena = size_text(bind_arena(plan, Sizes({}), 128).nbytes)
    except KeyError:
        arena = "as input shapes say"
    uses = Counter(plan.programs[s.program].entry for s in plan.launches)
    return {
        "steps": steps,
        "host_steps": [s for s in steps if s["kind"] == "host"],
        "programs": dict(uses),
        "totals": {
            "launches": sum(uses.values()),
            "programs": len(plan.programs),
            "host_steps": len(list(plan.host_steps)),
            "fused": sum(1 for s in plan.launches if "+" in s.label or "Pointwise" in s.label),
            "weight_bytes": sum(int(c.nbytes) for c in plan.constants),
            "arena": arena,
        },
    }


def _print_source(plan: Any, name: str) -> int:
    found = [p for p in plan.programs if p.entry == name or p.digest.startswith(name)]
    for program in found:
        print(f"// {program.entry}  {program.digest}  {program.options}")
        print(program.source)
    if not found:
        print(f"no kernel '{name}'; there are: {', '.join(p.entry for p in plan.programs)}")
    return 0 if found else 1


def _print_phase(model: Any, name: str) -> int:
    from clinfer.passes.pipeline import PHASES, optimise

    if name not in PHASES:
        print(f"no phase '{name}'; there are: {', '.join(PHASES)}")
        return 1
    graph = model.graph()
    optimise(graph, stop_after=name)
    print(graph)
    return 0
