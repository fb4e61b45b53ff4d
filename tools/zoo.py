"""Exports the model set: ten architectures of `transformers`, with weights that act as trained.

    python tools/zoo.py [NAME ...] [--out DIR]   full size, into a folder git ignores
    python tools/zoo.py --tiny [NAME ...]        tiny, with reference results, into tests/models/

Untouched random weights give outputs near zero that hide errors, and layers whose part in the
output is too small to see. Here every parameter gets the size it has in a trained model, batch
norms the statistics of real activations (a few batches in training mode), and an output whose
standard deviation lies outside 1e-3 .. 1e3, or which differs from the module's, is an error.
Needs the extra `zoo`.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from zoo_table import MODELS, Entry

ROOT = Path(__file__).resolve().parent.parent
OPSET = 17
SMALLEST_STD = 1e-3
LARGEST_STD = 1e3
LARGEST_ERROR = 1e-4  # of an output's largest value, ONNX Runtime against the module
LARGEST_TINY = 300_000
QUERIES_AND_KEYS = ("query", "key", "q_proj", "k_proj")  # names of layers in transformers


def main() -> int:
    """Exports what is asked for; returns the exit code."""
    options = _arguments()
    folder = options.out or (ROOT / "tests" / "models" if options.tiny else ROOT / "zoo")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name in options.names or MODELS:
        path = folder / f"{name}.onnx"
        partial = path.with_suffix(".part")
        inputs, outputs = export(MODELS[name], partial, options.tiny)
        arrays = {f"in:{key}": value for key, value in inputs.items()}
        if options.tiny:
            arrays |= {f"out:{key}": value for key, value in outputs.items()}
            if partial.stat().st_size > LARGEST_TINY:
                raise SystemExit(f"{name} has {partial.stat().st_size} bytes, over {LARGEST_TINY}")
        partial.replace(path)
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
    _spread_parameters(module, generator)
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
    with torch.no_grad():
        expected = [value.numpy() for value in module(*inputs.values())]
    return arrays, _checked_outputs(path, arrays, expected)


def _export_dynamo(
    module: nn.Module, entry: Entry, inputs: dict[str, torch.Tensor], path: Path
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


def _spread_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Gives every parameter the size it has in a trained model: no layer's error stays hidden.

    Embeddings, positions and learned tokens: standard deviation 1. Layers: see `_deviations`.
    Normalisation weights and layer scales: 1 +- 0.1. Biases: moved by 0.1.
    """
    deviations = _deviations(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.add_(0.1 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(1 + 0.1 * noise)
            else:
                constant = parameter.min() == parameter.max()
                values = noise if constant else parameter / parameter.std()
                parameter.copy_(values * deviations.get(id(parameter), 1.0))


def _deviations(module: nn.Module) -> dict[int, float]:
    """The standard deviation of each layer's weight, by the parameter's identity.

    Convolutions: sqrt(2 / fan in) (He et al., Delving Deep into Rectifiers, 2015). Dense layers:
    half of that; queries and keys: 2 / sqrt(fan in), which makes attention as sharp as in trained
    models. Where it is flat, a deep model maps all tokens to one (Dong et al., Attention is not
    all you need, 2021), and errors of queries and keys no longer show. Of a tied weight's uses the
    first counts, the embedding.
    """
    found: dict[int, float] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            deviation = 1.0
        elif isinstance(part, nn.modules.conv._ConvNd):  # [out, in, ...]
            deviation = math.sqrt(2 / part.weight[0].numel())
        elif isinstance(part, nn.Linear | Conv1D):  # [out, in], [in, out]
            fan_in = part.weight.shape[0 if isinstance(part, Conv1D) else 1]
            sharp = name.rpartition(".")[2] in QUERIES_AND_KEYS
            deviation = (2 if sharp else math.sqrt(0.5)) / math.sqrt(fan_in)
        else:
            continue
        found.setdefault(id(part.weight), deviation)
    return found


def _settle_batch_norms(
    module: nn.Module, entry: Entry, tiny: bool, generator: torch.Generator
) -> None:
    """A few batches in training mode, so that running statistics are those of activations."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
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


def _checked_outputs(
    path: Path, inputs: dict[str, np.ndarray], expected: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """ONNX Runtime's outputs by name.

    Raises `SystemExit` where one is not the module's own, or so flat that it tells no error.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, inputs), strict=True))
    for (name, value), own in zip(outputs.items(), expected, strict=True):
        if not SMALLEST_STD <= value.std() <= LARGEST_STD or not np.isfinite(value).all():
            raise SystemExit(f"{path}: output '{name}' has a standard deviation of {value.std()}")
        error = np.abs(value - own).max() / np.abs(own).max()
        if error > LARGEST_ERROR:
            raise SystemExit(f"{path}: output '{name}' is off the module's own by {error}")
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
