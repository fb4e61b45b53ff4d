"""Exports models that clinfer was not tuned for: random weights, batch 1, one sample input each.

    python tools/survey_models.py FOLDER [NAME ...]
    python tools/bench_peers.py FOLDER/*.onnx --rounds 3 --seconds 0.5 --output FILE

Classifiers and backbones of torchvision and timm, encoders and decoders of transformers, and small
networks of kinds that those lack (survey_networks.py). A library is loaded where a model asks for
it. A model whose library is not there or lacks it, or that does not export, is left out with a
line. Needs the extra `zoo`; torchvision and timm for theirs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import survey_networks as networks

OPSET = 17
Sample = Callable[[], torch.Tensor]
Pick = Callable[[Any], Any]


class Entry(NamedTuple):
    """How to build a module, a sample of its input, and what of its result is the output."""

    build: Callable[[], nn.Module]
    sample: Sample
    pick: Pick


class Picked(nn.Module):
    """A module of one input that returns tensors alone."""

    def __init__(self, inside: nn.Module, pick: Pick) -> None:
        super().__init__()
        self.inside = inside
        self.pick = pick

    def forward(self, x: torch.Tensor) -> Any:
        """What is picked of the module's result."""
        return self.pick(self.inside(x))


def values(*shape: int) -> Sample:
    """Values of a normal distribution."""
    return lambda: torch.randn(shape)


def tokens(*shape: int, below: int = 1000) -> Sample:
    """Places in a vocabulary."""
    return lambda: torch.randint(0, below, shape)


def picture(side: int = 224) -> Sample:
    """One square picture."""
    return values(1, 3, side, side)


def whole(output: Any) -> Any:
    """The result itself."""
    return output


def first(output: Any) -> Any:
    """The first of a tuple or of a result of transformers: the last hidden state, or logits."""
    return output[0]


def every(output: Any) -> Any:
    """The values of a dictionary."""
    return list(output.values())


def found(path: str) -> Any:
    """What a dotted path names, its module imported; an `AttributeError` where it lacks it."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def vision(
    path: str, sample: Sample | None = None, pick: Pick = whole, part: str = "", **options: Any
) -> Entry:
    """A model of torchvision.models; of `part` alone where one is named."""

    def build() -> nn.Module:
        module = found(f"torchvision.models.{path}")(weights=None, **options)
        return getattr(module, part) if part else module

    return Entry(build, sample or picture(), pick)


def image(name: str, side: int = 224) -> Entry:
    """A model of timm."""
    build = lambda: found("timm.create_model")(name, pretrained=False)  # noqa: E731
    return Entry(build, picture(side), whole)


def text(kind: str, sample: Sample, part: str = "", **sizes: Any) -> Entry:
    """A model of transformers of configuration `kind`; of `part` alone where one is named."""

    def build() -> nn.Module:
        family = kind.removesuffix("Encoder")
        module = found(f"transformers.{kind}Model")(found(f"transformers.{family}Config")(**sizes))
        return getattr(module, part) if part else module

    return Entry(build, sample, first)


def network(build: Callable[[], nn.Module], *shape: int, below: int = 0) -> Entry:
    """One of `survey_networks`, on values or, with `below`, on places in a vocabulary."""
    return Entry(build, tokens(*shape, below=below) if below else values(*shape), whole)


BARE = {"weights_backbone": None}
AUDIO = values(1, 16000)
SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
SIX = {**SMALL, "num_hidden_layers": 6}

CLASSIFIERS = """densenet121 regnet_y_800mf regnet_x_400mf regnet_y_1_6gf mobilenet_v3_large
    shufflenet_v2_x1_0 squeezenet1_1 vgg11_bn mnasnet1_0 swin_t efficientnet_v2_s maxvit_t
    resnext50_32x4d"""
TORCHVISION = {
    **{name: vision(name) for name in CLASSIFIERS.split()},
    "inception": vision("inception_v3", picture(299), init_weights=False, aux_logits=False),
    "googlenet": vision("googlenet", init_weights=False, aux_logits=False),
    "deeplab": vision("segmentation.deeplabv3_mobilenet_v3_large", picture(320), every, **BARE),
    "lraspp": vision("segmentation.lraspp_mobilenet_v3_large", picture(256), every, **BARE),
    "r3d": vision("video.r3d_18", values(1, 3, 8, 64, 64)),
    "ssdlite": vision(
        "detection.ssdlite320_mobilenet_v3_large", picture(320), every, "backbone", **BARE
    ),
    "fpn": vision(
        "detection.backbone_utils.resnet_fpn_backbone", pick=every, backbone_name="resnet18"
    ),
}
TIMM = {
    name: image(name, side)
    for side, names in {
        224: """ghostnet_100 mixer_s16_224 hrnet_w18_small poolformer_s12 repvgg_a0 levit_128s
        coatnet_0_rw_224 beit_base_patch16_224 efficientformer_l1 mobilenetv4_conv_small rexnet_100
        cspdarknet53 dla34 pvt_v2_b0 xcit_nano_12_p8_224 cait_xxs24_224 skresnet18 res2net50_26w_4s
        gcresnet33ts ese_vovnet19b_dw hardcorenas_a mvitv2_tiny davit_tiny inception_next_tiny
        repghostnet_100 starnet_s1""",
        256: "mobilevit_s edgenext_small fastvit_t8",
        192: "dm_nfnet_f0 tinynet_a",
        112: "convmixer_768_32",
    }.items()
    for name in names.split()
}
TRANSFORMERS = {
    "distilbert": text("DistilBert", tokens(1, 64)),
    "albert": text(
        "Albert",
        tokens(1, 128),
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
    ),
    "mobilebert": text("MobileBert", tokens(1, 128)),
    "electra": text("Electra", tokens(1, 128)),
    "roformer": text("RoFormer", tokens(1, 64), **SIX),
    "deberta": text(
        "DebertaV2",
        tokens(1, 64),
        **SIX,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "t5_encoder": text("T5Encoder", tokens(1, 64)),
    "bart_encoder": text("Bart", tokens(1, 96), "encoder", d_model=512, encoder_layers=4),
    "wav2vec2": text("Wav2Vec2", AUDIO, num_hidden_layers=6),
    "hubert": text("Hubert", AUDIO, num_hidden_layers=4),
    "conformer": text(
        "Wav2Vec2Conformer",
        AUDIO,
        num_hidden_layers=4,
        hidden_size=512,
        num_attention_heads=8,
        intermediate_size=2048,
        position_embeddings_type="rotary",
    ),
    "encodec": Entry(text("Encodec", AUDIO, "encoder").build, values(1, 1, 24000), whole),
    "ast": text("AST", values(1, 256, 128), **SIX, max_length=256),
    "clip_vision": text("CLIPVision", picture()),
    "yolos": text(
        "Yolos",
        picture(256),
        image_size=[256, 256],
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
    ),
    "sam_vision": text(
        "SamVision",
        picture(256),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=256,
        global_attn_indexes=[1, 3],
        window_size=7,
        output_channels=64,
    ),
}
WRITTEN = {
    "gru": network(networks.Gru, 1, 80, 200),
    "lstm_words": network(networks.LstmWords, 1, 64, below=1000),
    "crnn": network(networks.Crnn, 1, 1, 32, 160),
    "tcn": network(networks.Tcn, 1, 16, 256),
    "decoder": network(networks.Decoder, 1, 48, 256),
    "tasnet": network(networks.TasNet, 1, 1, 16000),
    "vocoder": network(networks.Vocoder, 1, 80, 40),
    "unet": network(networks.UNet, 1, 3, 256, 256),
    "diffusion": network(networks.diffusion, 1, 4, 64, 64),
    "decoder_vae": network(networks.VaeDecoder, 1, 4, 24, 24),
    "style": network(networks.style, 1, 3, 224, 224),
    "super_resolution": network(networks.super_resolution, 1, 3, 96, 96),
    "yolo": network(networks.Yolo, 1, 3, 320, 320),
    "pointnet": network(networks.PointNet, 1, 3, 1024),
    "mlp": network(networks.mlp, 1, 128),
    "deepfm": network(networks.DeepFm, 64, 26, below=10000),
}
MODELS = {**TORCHVISION, **TIMM, **TRANSFORMERS, **WRITTEN}


def main() -> int:
    """Exports what is asked for; the exit code is 1 where a model was left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    options = parser.parse_args()
    if unknown := set(options.names) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are: {', '.join(MODELS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    results = [exported(name, options.folder) for name in options.names or MODELS]
    return 0 if all(results) else 1


def exported(name: str, folder: Path) -> bool:
    """Exports one; False, with a line, where that cannot be done here."""
    try:
        export(MODELS[name], folder / f"{name}.onnx")
    except Exception as error:  # of libraries of any version: whatever they raise
        print(f"{name}: left out, {type(error).__name__}: {str(error)[:150]!r}", flush=True)
        return False
    print(name, flush=True)
    return True


def export(entry: Entry, path: Path) -> None:
    """Writes the model, and next to it its sample input as `bench_peers.py` takes it."""
    torch.manual_seed(0)
    module = Picked(entry.build(), entry.pick).eval()
    x = entry.sample()
    partial = path.with_suffix(".part")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of each size it takes as fixed
        torch.onnx.export(
            module, (x,), str(partial), dynamo=False, opset_version=OPSET, input_names=["x"]
        )
    partial.replace(path)
    np.savez(path.with_suffix(".npz"), **{"in:x": x.numpy()})


if __name__ == "__main__":
    sys.exit(main())
