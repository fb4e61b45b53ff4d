"""`clinfer explain`: what a device will do for a model, and why; nothing is built."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.output import emit_json, size_text, table
from clinfer.errors import PropertyError

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.graph.ir import Graph
    from clinfer.graph.model import Model
    from clinfer.lowering.plan import Plan, Program
    from clinfer_kernels.dims import Dim

_ALIGNMENT = 128  # bytes, as the CPU devices have it


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --device --device-lock --cache-dir --store --shape --source --phase --cache."""
    common.model_argument(parser)
    common.locked_device_argument(parser)
    remembering_arguments(parser)
    common.store_argument(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    parser.add_argument("--source", metavar="KERNEL", help="print that kernel's OpenCL C")
    parser.add_argument("--phase", metavar="NAME", help="print the graph after that phase")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="say what of the model the cache has, and how the nearest entries differ",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the plan, a kernel's source, or the graph after a phase."""
    from clinfer.device.discover import open_device
    from clinfer.plugins.compiler import optimised, plan_model

    core = common.core(options)
    model = core.read_model(options.model)
    shapes.reshape(model, options.shape, pictures.preparation(options))
    if options.phase:
        _show_phase(model, options)
        return 0
    if options.cache:
        _show_cache(core, model, options)
        return 0
    device = common.locked_device(options) or open_device(
        options.device, core.get_property("CPU_TARGET")
    )
    device = device.at_precision(core.get_property("INFERENCE_PRECISION_HINT"))
    plan = plan_model(model, device, core.tuning_data(device))
    if options.source:
        _show_source(plan, options)
        return 0
    document = describe(plan, optimised(model, device))
    if options.json:
        emit_json(document)
    else:
        _print(document)
    return 0


def describe(plan: Plan, graph: Graph) -> dict[str, Any]:
    """The plan as plain data; `graph` is the one it was made of, after all passes."""
    from clinfer.cli.graph_text import fused_operations
    from clinfer.graph.bodies import all_nodes
    from clinfer.lowering.arenas import bind_memory
    from clinfer.lowering.binding import Sizes
    from clinfer.lowering.plan import (
        AgainStep,
        BranchStep,
        HostStep,
        LaunchStep,
        LoopStep,
        SizesStep,
    )

    kinds: dict[type, str] = {
        BranchStep: "branch",
        LoopStep: "loop",
        AgainStep: "again",
        SizesStep: "sizes",
    }
    fused = {node.describe(): fused_operations(node) for node in all_nodes(graph)}
    inside = _places(plan)
    steps: list[dict[str, Any]] = []
    for number, step in enumerate(plan.steps):
        row: dict[str, Any] = {"step": number}
        if number in inside:
            row["of"] = inside[number]
        if isinstance(step, LaunchStep):
            row.update(kind="launch", kernel=plan.programs[step.program].entry)
            row.update(computes=step.label, fused=fused.get(step.label, []))
            row.update(_flops(step.flops))
            if step.when != 1:
                row["when"] = str(step.when)
        elif isinstance(step, HostStep):
            row.update(kind="host", kernel="", computes=step.label, reason=step.reason)
        else:
            row.update(kind=kinds[type(step)], kernel="", computes=step.label)
        steps.append(row)
    try:
        memory = bind_memory(plan, Sizes({}), _ALIGNMENT)._asdict()
    except KeyError:  # a dynamic size; --shape gives it
        memory = None
    uses = Counter(plan.programs[s.program].entry for s in plan.launches)
    return {
        "steps": steps,
        "host_steps": [s for s in steps if s["kind"] == "host"],
        "programs": dict(uses),
        "totals": {
            "launches": sum(uses.values()),
            "programs": len(plan.programs),
            "host_steps": len(list(plan.host_steps)),
            "fused": len({s["computes"] for s in steps if s.get("fused")}),
            "weight_bytes": sum(int(c.nbytes) for c in plan.constants),
        },
        "memory": memory,
    }


def _places(plan: Plan) -> dict[int, str]:
    """The branch or loop that a step is of, by the step's number; the innermost, of several."""
    from clinfer.lowering.plan import BranchStep, LoopStep

    found: dict[int, str] = {}
    for step in plan.steps:
        for block in step.blocks if isinstance(step, (BranchStep, LoopStep)) else ():
            found.update(dict.fromkeys(range(block.first, block.end), block.label))
    return found


def _flops(flops: Dim) -> dict[str, Any]:
    """A number; of one that depends on sizes the expression, and null in the number's place."""
    if isinstance(flops, int):
        return {"flops": flops}
    return {"flops": None, "flops_by_size": str(flops)}


def _print(document: dict[str, Any]) -> None:
    steps = [{**step, "fused": ", ".join(step.get("fused", ()))} for step in document["steps"]]
    of = ["of"] if any("of" in step for step in steps) else []
    table(steps, ["step", "kind", "kernel", "computes", "fused", *of])
    print()
    for step in document["host_steps"]:
        print(f"host step: {step['computes']}: {step['reason']}")
    totals = document["totals"]
    print(
        f"{totals['launches']} launches of {totals['programs']} programs, "
        f"{totals['host_steps']} host steps, {totals['fused']} fused groups, "
        f"weights {size_text(totals['weight_bytes'])}"
    )
    memory = document["memory"]
    if memory is None:
        print("memory as input shapes say: give them with --shape")
        return
    sizes = {name: size_text(value) for name, value in memory.items()}
    print(
        f"arena {sizes['arena']} (alive at once {sizes['alive']}, of it scratch "
        f"{sizes['scratch']}), inputs and outputs {sizes['ports']}"
    )


def _show_source(plan: Plan, options: argparse.Namespace) -> None:
    name = options.source
    found = [p for p in plan.programs if p.entry == name or p.digest.startswith(name)]
    if not found:
        known = ", ".join(sorted({p.entry for p in plan.programs})) or "none"
        raise PropertyError(f"--source {name}: no such kernel; there are: {known}")
    if options.json:
        emit_json([_program(p) for p in found])
        return
    for program in found:
        print(f"// {program.entry}  {program.digest}  {program.options}".rstrip())
        print(program.source)


def _program(program: Program) -> dict[str, Any]:
    return {
        "kernel": program.entry,
        "digest": program.digest,
        "options": program.options,
        "source": program.source,
    }


def _show_cache(core: Core, model: Model, options: argparse.Namespace) -> None:
    """What `CACHE_MODE=cache-only` would find, and say of what it does not find."""
    device = common.locked_device(options) or str(options.device)
    found = core.coverage(model, device)
    seed = core.seed_coverage(model, device)
    if options.json:
        emit_json({**found.to_json(), "seed": seed})
        return
    for gap in found.gaps:
        print(gap)
    there = found.needed - len(found.gaps)
    print(f"{there} of the {found.needed} entries that a start looks up are in the cache")
    if seed is None:
        return
    print(*seed["missing"], sep="\n", end="\n" if seed["missing"] else "")
    there = seed["needed"] - len(seed["missing"])
    what = f"{there} of the {seed['needed']} programs"
    print(f"{what} are in the seed '{seed['folder']}', compiled for {seed['target']}")


def _show_phase(model: Model, options: argparse.Namespace) -> None:
    from clinfer.cli.graph_text import graph_text
    from clinfer.passes.pipeline import PHASES, optimise

    if options.phase not in ("read", *PHASES):
        known = ", ".join(("read", *PHASES))
        raise PropertyError(f"--phase {options.phase}: no such phase; there are: {known}")
    graph = model.graph()
    if options.phase != "read":
        cls = "cpu" if options.device.upper().startswith("CPU") else "gpu"
        optimise(graph, cls=cls, stop_after=options.phase)
    text = graph_text(graph)
    if options.json:
        emit_json({"phase": options.phase, "graph": text.splitlines()})
    else:
        print(text)
