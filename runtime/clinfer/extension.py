"""Operators of one's own, for `Core.add_extension`.

    core.add_extension(extension.OnnxFunction(function_proto))
    core.add_extension(extension.PythonOperator("my::Sort", np.sort, {"x": None}, ...))
    core.add_extension(extension.OpenCLOperator("my::Twice", TEXT, "twice", ...))

docs/extensions.md has an example of each.
"""

from __future__ import annotations

from clinfer.operators.custom import CustomOperator
from clinfer.operators.custom_function import PythonOperator
from clinfer.operators.custom_kernel import OpenCLOperator
from clinfer.operators.custom_types import TensorType
from clinfer.operators.extensions import OnnxFunction

__all__ = ["CustomOperator", "OnnxFunction", "OpenCLOperator", "PythonOperator", "TensorType"]
