"""Names of OpenVINO's Python API that are other words for something that a class already has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

# By class: the other word and what it stands for. What stands for a property and begins with 'get_'
# or 'is_' is a method without arguments; the rest is of the kind that it stands for.
SYNONYMS: dict[str, dict[str, str]] = {
    "Core": {"get_available_devices": "available_devices"},
    "Port": {
        "any_name": "name",
        "get_any_name": "name",
        "get_names": "names",
        "get_index": "index",
        "get_shape": "shape",
        "get_partial_shape": "partial_shape",
        "get_element_type": "element_type",
        "get_rt_info": "rt_info",
        "get_node": "node",
        "get_tensor": "tensor",
    },
    "Model": {
        "get_name": "name",
        "get_friendly_name": "friendly_name",
        "is_dynamic": "dynamic",
        "get_ordered_ops": "operators",
        "get_ops": "operators",
        "get_parameters": "parameters",
        "get_results": "results",
        "get_sinks": "sinks",
        "get_variables": "variables",
    },
    "InferRequest": {
        "get_compiled_model": "model",
        "get_profiling_info": "profiling_info",
    },
    "RemoteTensor": {
        "get_shape": "shape",
        "get_element_type": "element_type",
        "get_size": "size",
        "get_byte_size": "byte_size",
    },
    "Tensor": {
        "get_shape": "shape",
        "get_element_type": "element_type",
        "get_size": "size",
        "get_byte_size": "byte_size",
        "get_strides": "strides",
    },
}


def with_synonyms(cls: C) -> C:
    """Decorates a class: it gets its other words."""
    for word, meaning in SYNONYMS[cls.__name__].items():
        setattr(cls, word, _synonym(word, meaning))
    return cls


def _synonym(word: str, meaning: str) -> Any:
    def get(self: Any) -> Any:
        return getattr(self, meaning)

    get.__name__ = word
    get.__doc__ = f"As `{meaning}`."
    return get if word.startswith(("get_", "is_")) else property(get)


def renamed(words: dict[str, str], given: dict[str, Any], function: Callable[..., Any]) -> None:
    """Puts keyword arguments that were `given` by another word under the function's own name."""
    for word, meaning in words.items():
        if word in given:
            if meaning in given:
                raise TypeError(f"{function.__name__}() takes {word}= or {meaning}=, not both")
            given[meaning] = given.pop(word)
