"""Trains the example: a small convolutional network on scikit-learn's handwritten digits.

    python tools/train_digits.py

Writes examples/digits.onnx (dynamic batch) and examples/digits.npz (100 images it has not seen,
with their labels). The data: 1,797 images of 8 x 8 pixels by E. Alpaydin and C. Kaynak, UCI
repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
HELD_OUT = 100
EPOCHS = 60
LEAST_ACCURACY = 0.97


class Digits(nn.Module):
    """Two convolutional stages with a residual block between, then a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.Conv2d(16, 16, 1),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.classify = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image [batch, 1, 8, 8] in 0 .. 1 -> scores [batch, 10], softmax's logits."""
        x = self.stem(image)
        x = torch.relu(x + self.block(x))
        return self.classify(self.head(x).flatten(1))


def main() -> None:
    """Trains, checks the held-out accuracy, writes model and images."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    model = train(images[HELD_OUT:], labels[HELD_OUT:])
    with torch.no_grad():
        scores = model(torch.from_numpy(images[:HELD_OUT])).numpy()
    accuracy = float((scores.argmax(1) == labels[:HELD_OUT]).mean())
    if accuracy < LEAST_ACCURACY:
        raise SystemExit(f"only {accuracy:.1%} of the held-out images are right")
    write(model)
    np.savez_compressed(EXAMPLES / "digits.npz", image=images[:HELD_OUT], label=labels[:HELD_OUT])
    print(f"{accuracy:.1%} of {HELD_OUT} held-out images are right")


def train(images: np.ndarray, labels: np.ndarray) -> Digits:
    """The trained network, in evaluation mode."""
    model = Digits()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
        schedule.step()
    return model.eval()


def write(model: Digits) -> None:
    """Exports the network with its labels in the metadata."""
    path = EXAMPLES / "digits.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
    )
    proto = onnx.load(path)
    entry = proto.metadata_props.add()
    entry.key = "clinfer.labels"
    entry.value = ",".join(str(digit) for digit in range(10))
    onnx.save(proto, path)


if __name__ == "__main__":
    main()
