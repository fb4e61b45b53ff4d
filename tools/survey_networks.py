"""Networks that `survey_models.py` exports: kinds that the libraries lack, or have only large."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """x + inside(x)."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.inside = nn.Sequential(*inside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inside(x)


class Gru(nn.Module):
    """Speech: a convolution, two bidirectional GRU layers, a dense one. [1, 80, time]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, 256, 5, padding=2)
        self.states = nn.GRU(256, 400, 2, batch_first=True, bidirectional=True)
        self.last = nn.Linear(800, 50)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.states(functional.relu(self.first(x)).transpose(1, 2))[0])


class LstmWords(nn.Module):
    """A language model of two LSTM layers. [1, words]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5000, 256)
        self.states = nn.LSTM(256, 512, 2, batch_first=True)
        self.last = nn.Linear(512, 5000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.states(self.words(x))[0])


class Crnn(nn.Module):
    """Reads a line of text (Shi et al., 2015). [1, 1, 32, width]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for filters, pool in (
            (64, (2, 2)),
            (128, (2, 2)),
            (256, None),
            (256, (2, 1)),
            (512, None),
            (512, (2, 1)),
            (512, (2, 1)),
        ):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters)]
            layers += [nn.ReLU(), *([nn.MaxPool2d(pool)] if pool else [])]
            channels = filters
        self.columns = nn.Sequential(*layers)
        self.states = nn.LSTM(512, 256, 2, bidirectional=True)
        self.last = nn.Linear(512, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.states(self.columns(x).squeeze(2).permute(2, 0, 1))[0])


class Tcn(nn.Module):
    """Dilated causal convolutions with sums past them. [1, 16, time]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(64 if k else 16, 64, 3, dilation=2**k) for k in range(7)
        )
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for k, layer in enumerate(self.layers):
            y = functional.relu(layer(functional.pad(x, (2 ** (k + 1), 0))))
            x = y + x if k else y
        return self.last(x[:, :, -1])


class Decoder(nn.Module):
    """Four layers of self and cross attention, causal (Vaswani et al., 2017). [1, 48, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(256, 8, 1024, batch_first=True), 4
        )
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x, x.flip(1), tgt_mask=self.mask)


class TasNet(nn.Module):
    """Separates two voices (Conv-TasNet, Luo and Mesgarani, 2019). [1, 1, samples]."""

    def __init__(self, filters: int = 128, narrow: int = 64) -> None:
        super().__init__()
        self.encode = nn.Conv1d(1, filters, 16, 8)
        self.narrow = nn.Sequential(nn.GroupNorm(1, filters), nn.Conv1d(filters, narrow, 1))
        blocks = [Residual(*self._block(filters, narrow, 2**k)) for _ in range(2) for k in range(6)]
        self.masks = nn.Sequential(*blocks, nn.Conv1d(narrow, 2 * filters, 1), nn.Sigmoid())
        self.decode = nn.ConvTranspose1d(filters, 1, 16, 8)

    @staticmethod
    def _block(wide: int, narrow: int, dilation: int) -> tuple[nn.Module, ...]:
        return (
            nn.Conv1d(narrow, wide, 1),
            nn.PReLU(),
            nn.GroupNorm(1, wide),
            nn.Conv1d(wide, wide, 3, padding=dilation, dilation=dilation, groups=wide),
            nn.PReLU(),
            nn.GroupNorm(1, wide),
            nn.Conv1d(wide, narrow, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = functional.relu(self.encode(x))
        masks = self.masks(self.narrow(code)).chunk(2, 1)
        return torch.stack([self.decode(code * mask) for mask in masks], 1)


class Vocoder(nn.Module):
    """Sound of a mel spectrogram (after HiFi-GAN, Kong et al., 2020). [1, 80, frames]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(80, 256, 7, padding=3)]
        channels = 256
        for size, stride in ((16, 8), (16, 8), (4, 2), (4, 2)):
            up = nn.ConvTranspose1d(channels, channels // 2, size, stride, (size - stride) // 2)
            channels //= 2
            layers += [nn.LeakyReLU(0.1), up]
            layers += [self._residual(channels, k, d) for k in (3, 7) for d in (1, 3, 5)]
        last = nn.Conv1d(channels, 1, 7, padding=3)
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.1), last, nn.Tanh())

    @staticmethod
    def _residual(channels: int, size: int, dilation: int) -> Residual:
        padding = dilation * (size - 1) // 2
        conv = nn.Conv1d(channels, channels, size, padding=padding, dilation=dilation)
        return Residual(nn.LeakyReLU(0.1), conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class UNet(nn.Module):
    """Segments a picture on four scales (Ronneberger et al., 2015). [1, 3, height, width]."""

    def __init__(self, base: int = 32) -> None:
        super().__init__()
        widths = [base << k for k in range(4)]
        self.down = nn.ModuleList(map(self._pair, [3, *widths], widths))
        backwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in backwards)
        self.joined = nn.ModuleList(self._pair(i, o) for i, o in backwards)
        self.last = nn.Conv2d(base, 2, 1)

    @staticmethod
    def _pair(channels: int, filters: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs in (channels, filters):
            layers += [nn.Conv2d(inputs, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for number, layers in enumerate(self.down):
            x = layers(functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        kept.pop()
        for up, layers in zip(self.up, self.joined, strict=True):
            x = layers(torch.cat([up(x), kept.pop()], 1))
        return self.last(x)


def _normed(channels: int, filters: int) -> tuple[nn.Module, ...]:
    return nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, filters, 3, padding=1)


def diffusion() -> nn.Module:
    """The first scales of a U-Net of diffusion. [1, 4, height, width]."""
    blocks = {c: [Residual(*_normed(c, c), *_normed(c, c)) for _ in range(3)] for c in (128, 256)}
    down = nn.Conv2d(128, 256, 3, 2, 1)
    return nn.Sequential(nn.Conv2d(4, 128, 3, padding=1), *blocks[128], down, *blocks[256][:2])


class VaeDecoder(nn.Module):
    """A picture of a code: attention among places, then three scales. [1, 4, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 128, 3, padding=1)
        self.norm = nn.GroupNorm(32, 128)
        self.heads = nn.Conv2d(128, 384, 1)
        sizes = ((128, 128), (128, 64), (64, 64))
        self.blocks = nn.ModuleList(nn.Sequential(*_normed(i, o), *_normed(o, o)) for i, o in sizes)
        self.past = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in sizes)
        self.last = nn.Sequential(*_normed(64, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        q, k, v = self.heads(self.norm(x)).flatten(2).chunk(3, 1)
        weights = torch.softmax(q.transpose(1, 2) @ k * 128**-0.5, -1)
        x = x + (weights @ v.transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        for block, past in zip(self.blocks, self.past, strict=True):
            x = functional.interpolate(past(x) + block(x), scale_factor=2.0)
        return self.last(x)


def style() -> nn.Module:
    """Style transfer (Johnson et al., 2016). [1, 3, height, width]."""

    def layer(channels: int, filters: int, size: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(channels, filters, size, stride)
        norm = nn.InstanceNorm2d(filters, affine=True)
        return [nn.ReflectionPad2d(size // 2), conv, norm, nn.ReLU()]

    down = [*layer(3, 32, 9), *layer(32, 64, 3, 2), *layer(64, 128, 3, 2)]
    middle = [part for _ in range(3) for part in layer(128, 128, 3)]
    up = [p for c in (128, 64) for p in (nn.Upsample(scale_factor=2), *layer(c, c // 2, 3))]
    return nn.Sequential(*down, *middle, *up, nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9))


def super_resolution() -> nn.Module:
    """Four times as wide and high. [1, 3, height, width]."""
    middle = [p for _ in range(6) for p in (nn.Conv2d(64, 64, 3, padding=1), nn.PReLU())]
    last = nn.Conv2d(64, 48, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, padding=2), nn.PReLU(), *middle, last, nn.PixelShuffle(4)
    )


def _conv(channels: int, filters: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters), nn.SiLU())


class Stage(nn.Module):
    """Half of the channels through `count` blocks, and all that they made joined."""

    def __init__(self, channels: int, filters: int, count: int) -> None:
        super().__init__()
        half = filters // 2
        self.first = _conv(channels, filters)
        pairs = [(_conv(half, half, 3), _conv(half, half, 3)) for _ in range(count)]
        self.blocks = nn.ModuleList(Residual(*pair) for pair in pairs)
        self.last = _conv((2 + count) * half, filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A detector of three scales, with boxes as expected distances. [1, 3, side, side]."""

    def __init__(self, w: int = 16) -> None:
        super().__init__()
        wide, wider, widest = 4 * w, 8 * w, 16 * w
        stem = (_conv(3, w, 3, 2), _conv(w, 2 * w, 3, 2), Stage(2 * w, 2 * w, 1))
        self.a = nn.Sequential(*stem, _conv(2 * w, wide, 3, 2), Stage(wide, wide, 2))
        self.b = nn.Sequential(_conv(wide, wider, 3, 2), Stage(wider, wider, 2))
        self.c = nn.Sequential(_conv(wider, widest, 3, 2), Stage(widest, widest, 1))
        self.up_b = Stage(24 * w, wider, 1)
        self.up_a = Stage(12 * w, wide, 1)
        self.down = _conv(wide, wide, 3, 2)
        self.down_b = Stage(12 * w, wider, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(c, 64, 3), _conv(64, 64, 3), nn.Conv2d(64, 144, 1))
            for c in (wide, wider, widest)
        )
        self.register_buffer("places", torch.arange(16.0).view(1, 16, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = self.b(a)
        c = self.c(b)
        p = self.up_b(torch.cat([functional.interpolate(c, scale_factor=2.0), b], 1))
        q = self.up_a(torch.cat([functional.interpolate(p, scale_factor=2.0), a], 1))
        r = self.down_b(torch.cat([self.down(q), p], 1))
        made = [head(scale).flatten(2) for head, scale in zip(self.heads, (q, r, c), strict=True)]
        boxes, classes = torch.cat(made, 2).split((64, 80), 1)
        shares = boxes.unflatten(1, (4, 16)).transpose(1, 2).softmax(1)
        return torch.cat([(shares * self.places).sum(1), classes.sigmoid()], 1)


class PointNet(nn.Module):
    """Classifies points (Qi et al., 2017). [1, 3, points]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 64), (64, 128), (128, 1024))
        layers = [p for i, o in sizes for p in (nn.Conv1d(i, o, 1), nn.BatchNorm1d(o), nn.ReLU())]
        self.each = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 40))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.each(x).max(2)[0])


def mlp() -> nn.Module:
    """Three dense layers. [1, 128]."""
    first = (nn.Linear(128, 512), nn.ReLU(), nn.BatchNorm1d(512))
    return nn.Sequential(*first, nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10))


class DeepFm(nn.Module):
    """Recommends: products of pairs and dense layers (Guo et al., 2017). [users, 26]."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(10000, 16)
        self.weights = nn.Embedding(10000, 1)
        dense = (nn.Linear(26 * 16, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU())
        self.deep = nn.Sequential(*dense, nn.Linear(400, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = self.vectors(x)
        pairs = 0.5 * (e.sum(1) ** 2 - (e**2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(self.weights(x).sum(1) + pairs + self.deep(e.flatten(1)))
