"""Exports the model set: ten architectures of `transformers`, with weights that act as trained.

    python tools/zoo.py [NAME ...] [--out DIR]     full size, into a folder git ignores
    python tools/zoo.py --tiny                     tiny versions with reference results, tests/models/

Untouched random weights give outputs near zero that hide errors. Here batch norms get the
statistics of real activations (a few batches in training mode), biases and normalisation weights
are perturbed, and an output whose standard deviation lies outside 1e-3 .. 1e3 is an error. Needs the extra `zoo`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from zoo_table import MODELS, Entry

ROOT = Path(__file__).resolve().parent.parent
OPSET = 17
SMALLEST_STD = 1e-3
LARGEST_STD = 1e3
LARGEST_TINY = 300_000


def main() -> int:
    """Exports what is asked for; returns the exit code."""
    options = _arguments()
    folder = options.out or (ROOT / "tests" / "models" if options.tiny else ROOT / "zoo")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name in options.names or MODELS:
        path = folder / f"{name}.onnx"
        inputs, outputs = export(MODELS[name], path, options.tiny)
        arrays = {f"in:{key}": value for key, value in inputs.items()}
        if options.tiny:
            arrays |= {f"out:{key}": value for key, value in outputs.items()}
            if path.stat().st_size > LARGEST_TINY:
                raise SystemExit(f"{path} has {path.stat().st_size} bytes, over {LARGEST_TINY}")
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        spread = ", ".join(f"{key} {value.std():.3g}" for key, value in outputs.items())
        print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, standard deviations: {spread}")
    return 0


def export(
    entry: Entry, path: Path, tiny: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Writes one model; returns its sample inputs and ONNX Runtime's outputs by name."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    module = entry.build(tiny)
    _perturb(module, generator)
    inputs = entry.inputs(tiny, generator)
    _settle_batch_norms(module, entry, tiny, generator)
    module.eval()
    if entry.dynamo:
        _export_dynamo(module, entry, inputs, path)
    else:
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=list(inputs),
            output_names=list(entry.outputs),
            dynamic_axes=entry.dynamic_axes or None,
        )
    _strip(path)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return arrays, _checked_outputs(path, arrays)


def _export_dynamo(
    module: torch.nn.Module, entry: Entry, inputs: dict[str, torch.Tensor], path: Path
) -> None:
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(entry.outputs),
        dynamic_shapes=entry.dynamic_shapes,
    )
    program.save(str(path), external_data=False)


def _strip(path: Path) -> None:
    """Takes out what exporters note for people: documentation strings, stack traces with paths."""
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
    for part in (*nodes, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(model, path)


def _perturb(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Biases away from zero, normalisation weights away from one, per element."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.add_(0.1 * noise)
            elif parameter.ndim == 1:
                parameter.mul_(1 + 0.1 * noise)


def _settle_batch_norms(
    module: torch.nn.Module, entry: Entry, tiny: bool, generator: torch.Generator
) -> None:
    """A few batches in training mode, so that running statistics are those of activations."""
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a cumulative average
        norm.reset_running_stats()
    module.train()
    with torch.no_grad():
        for _ in range(3):
            batch = entry.inputs(tiny, generator)
            module(*(torch.cat([x, x.flip(-1), -x, x + 0.3]) for x in batch.values()))


def _checked_outputs(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime's outputs. Raises `SystemExit` where one says nothing about errors."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, inputs), strict=True))
    for name, value in outputs.items():
        if not SMALLEST_STD <= value.std() <= LARGEST_STD or not np.isfinite(value).all():
            raise SystemExit(f"{path}: output '{name}' has a standard deviation of {value.std()}")
    return outputs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--tiny", action="store_true", help="tiny versions for the tests")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    unknown = set(options.names) - set(MODELS)
    if unknown:
        parser.error(f"no model {', '.join(sorted(unknown))}; there are: {', '.join(MODELS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
