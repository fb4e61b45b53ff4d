"""What is done to inputs before a model and to outputs behind it, in OpenVINO's words.

    from clinfer.preprocess import PrePostProcessor, ResizeAlgorithm

    ppp = PrePostProcessor(model)
    ppp.input().tensor().set_element_type(Type.u8).set_layout("NHWC").set_shape([1, 480, 640, 3])
    ppp.input().preprocess().resize(ResizeAlgorithm.RESIZE_LINEAR).mean(127.5).scale(127.5)
    ppp.input().model().set_layout("NCHW")
    model = ppp.build()

The steps become ONNX nodes around the model's graph: they are compiled with it, are part of the
cache's key, of exported blobs and of what `save_model` writes. Nothing of this room runs later.
"""

from clinfer.preprocess.infos import (
    InputInfo,
    InputModelInfo,
    InputTensorInfo,
    OutputInfo,
    OutputModelInfo,
    OutputTensorInfo,
)
from clinfer.preprocess.lists import PostProcessSteps, PreProcessSteps
from clinfer.preprocess.names import ColorFormat, PaddingMode, ResizeAlgorithm
from clinfer.preprocess.processor import PrePostProcessor

__all__ = [
    "ColorFormat",
    "InputInfo",
    "InputModelInfo",
    "InputTensorInfo",
    "OutputInfo",
    "OutputModelInfo",
    "OutputTensorInfo",
    "PaddingMode",
    "PostProcessSteps",
    "PrePostProcessor",
    "PreProcessSteps",
    "ResizeAlgorithm",
]
