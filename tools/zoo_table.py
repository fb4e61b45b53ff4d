"""The ten models of the set: how each is built, full and tiny, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf

Inputs = dict[str, torch.Tensor]


class Wrapped(torch.nn.Module):
    """Calls a transformers model with named inputs and returns chosen outputs as a tuple."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.names = names
        self.outputs = outputs

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The chosen outputs."""
        result = self.model(**dict(zip(self.names, values, strict=True)))
        return tuple(result[name] for name in self.outputs)


@dataclass(frozen=True)
class Entry:
    """One model. `build(tiny)` makes the module, `inputs(tiny, generator)` a sample."""

    build: Callable[[bool], torch.nn.Module]
    inputs: Callable[[bool, torch.Generator], Inputs]
    outputs: tuple[str, ...]
    dynamic_axes: dict[str, dict[int, str]] = field(default_factory=dict)
    dynamo: bool = False
    dynamic_shapes: Any = None


def _image(full: int, tiny: int) -> Callable[[bool, torch.Generator], Inputs]:
    def make(is_tiny: bool, generator: torch.Generator) -> Inputs:
        size = tiny if is_tiny else full
        return {"pixel_values": torch.randn(1, 3, size, size, generator=generator)}

    return make


def _vision(
    config: Callable[[bool], Any], model: type, outputs: tuple[str, ...] = ("logits",)
) -> Callable[[bool], torch.nn.Module]:
    return lambda tiny: Wrapped(model(config(tiny)), ("pixel_values",), outputs)


def _resnet(tiny: bool) -> Any:
    if not tiny:
        return hf.ResNetConfig(num_labels=1000)
    return hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 2, 1, 1], num_labels=10
    )


def _mobilenet(tiny: bool) -> Any:
    if not tiny:
        return hf.MobileNetV2Config(num_labels=1001)
    return hf.MobileNetV2Config(
        num_labels=10,
        depth_multiplier=0.05,
        min_depth=4,
        depth_divisible_by=4,
        finegrained_output=False,
    )


def _efficientnet(tiny: bool) -> Any:
    if not tiny:
        return hf.EfficientNetConfig(
            width_coefficient=1.0,
            depth_coefficient=1.0,
            image_size=224,
            hidden_dim=1280,
            num_labels=1000,
        )
    return hf.EfficientNetConfig(
        width_coefficient=0.25,
        depth_coefficient=1.0,
        image_size=32,
        hidden_dim=320,
        num_labels=10,
        depth_divisor=4,
        kernel_sizes=[3, 3, 5],
        in_channels=[32, 16, 24],
        out_channels=[16, 24, 40],
        depthwise_padding=[],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 2],
        expand_ratios=[1, 6, 6],
    )


def _convnext(tiny: bool) -> Any:
    if not tiny:
        return hf.ConvNextConfig(num_labels=1000)
    return hf.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64, num_labels=10
    )


def _vit(tiny: bool) -> Any:
    if not tiny:
        return hf.ViTConfig(num_labels=1000)
    return hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=48,
        patch_size=16,
        num_labels=10,
    )


def _segformer(tiny: bool) -> Any:
    if not tiny:
        return hf.SegformerConfig(num_labels=150)
    return hf.SegformerConfig(
        num_labels=5,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 24],
        num_attention_heads=[1, 2, 2, 3],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=16,
    )


def _yolos(tiny: bool) -> Any:
    if not tiny:
        return hf.YolosConfig(
            hidden_size=192,
            num_hidden_layers=12,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=[256, 256],
        )
    return hf.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[64, 64],
        num_detection_tokens=5,
        num_labels=4,
    )


def _whisper(tiny: bool) -> torch.nn.Module:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = (384, 4, 6, 1536, 1500, 80) if not tiny else (32, 2, 4, 64, 20, 8)
    width, layers, heads, inner, positions, bins = sizes
    config = hf.WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=inner,
        max_source_positions=positions,
        num_mel_bins=bins,
    )
    return Wrapped(WhisperEncoder(config), ("input_features",), ("last_hidden_state",))


def _spectrum(tiny: bool, generator: torch.Generator) -> Inputs:
    shape = (1, 8, 40) if tiny else (1, 80, 3000)
    return {"input_features": torch.randn(shape, generator=generator)}


def _bert(tiny: bool) -> torch.nn.Module:
    config = hf.BertConfig()
    if tiny:
        config = hf.BertConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Wrapped(hf.BertModel(config), names, ("last_hidden_state", "pooler_output"))


def _tokens(tiny: bool, generator: torch.Generator) -> Inputs:
    """Two sentences, the second padded."""
    words, length = (200, 12) if tiny else (30522, 128)
    ids = torch.randint(1, words, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length * 3 // 4 :] = 0
    kinds = torch.zeros_like(ids)
    kinds[:, length // 2 :] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}


def _gpt2(tiny: bool) -> torch.nn.Module:
    """A tiny vocabulary still too large for the exporter to fold the tied head's Transpose."""
    config = hf.GPT2Config(use_cache=False)
    if tiny:
        config = hf.GPT2Config(
            vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, use_cache=False
        )
    return Wrapped(hf.GPT2LMHeadModel(config), ("input_ids",), ("logits",))


def _words(tiny: bool, generator: torch.Generator) -> Inputs:
    words, length = (300, 12) if tiny else (50257, 64)
    return {"input_ids": torch.randint(0, words, (2, length), generator=generator)}


_BATCH_SEQUENCE = {0: "batch", 1: "sequence"}
_AUTO = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=2)}

MODELS = {
    "resnet50": Entry(
        _vision(_resnet, hf.ResNetForImageClassification), _image(224, 64), ("logits",)
    ),
    "mobilenetv2": Entry(
        _vision(_mobilenet, hf.MobileNetV2ForImageClassification), _image(224, 64), ("logits",)
    ),
    "efficientnet_b0": Entry(
        _vision(_efficientnet, hf.EfficientNetForImageClassification), _image(224, 32), ("logits",)
    ),
    "convnext_tiny": Entry(
        _vision(_convnext, hf.ConvNextForImageClassification), _image(224, 64), ("logits",)
    ),
    "vit_base": Entry(_vision(_vit, hf.ViTForImageClassification), _image(224, 48), ("logits",)),
    "bert_base": Entry(
        _bert,
        _tokens,
        ("last_hidden_state", "pooler_output"),
        dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), _BATCH_SEQUENCE)
        | {"last_hidden_state": _BATCH_SEQUENCE, "pooler_output": {0: "batch"}},
    ),
    "segformer_b0": Entry(
        _vision(_segformer, hf.SegformerForSemanticSegmentation), _image(512, 64), ("logits",)
    ),
    "yolos_tiny": Entry(
        _vision(_yolos, hf.YolosForObjectDetection, ("logits", "pred_boxes")),
        _image(256, 64),
        ("logits", "pred_boxes"),
    ),
    "whisper_tiny_encoder": Entry(_whisper, _spectrum, ("last_hidden_state",)),
    "gpt2": Entry(
        _gpt2,
        _words,
        ("logits",),
        dynamo=True,
        dynamic_shapes=((_AUTO,),),
    ),
}
