"""OpenVINO's names of properties, by the module of `openvino.properties` that has them."""

from __future__ import annotations

from enum import Enum
from typing import Any

from clinfer.errors import listed

_OF_MODULE = {
    "": """auto_batch_timeout available_devices cache_dir cache_encryption_callbacks cache_mode
        compatibility_check compilation_num_threads enable_mmap enable_profiling=PERF_COUNT
        enable_weightless execution_devices force_tbb_terminate inference_num_threads
        key_cache_group_size key_cache_precision loaded_from_cache max_batch_size
        model_name=NETWORK_NAME num_streams optimal_batch_size optimal_number_of_infer_requests
        range_for_async_infer_requests range_for_streams runtime_requirements supported_properties
        value_cache_group_size value_cache_precision weights_path workload_type""",
    "hint": """activations_scale_factor allow_auto_batching compiled_blob
        dynamic_quantization_group_size enable_cpu_pinning enable_cpu_reservation
        enable_hyper_threading execution_mode=EXECUTION_MODE_HINT
        inference_precision=INFERENCE_PRECISION_HINT kv_cache_precision model=MODEL_PTR
        model_distribution_policy model_priority num_requests=PERFORMANCE_HINT_NUM_REQUESTS
        performance_mode=PERFORMANCE_HINT scheduling_core_type""",
    "device": """architecture=DEVICE_ARCHITECTURE capabilities=OPTIMIZATION_CAPABILITIES
        full_name=FULL_DEVICE_NAME gops=DEVICE_GOPS id=DEVICE_ID luid=DEVICE_LUID
        pci_info=DEVICE_PCI_INFO priorities=MULTI_DEVICE_PRIORITIES properties=DEVICE_PROPERTIES
        thermal=DEVICE_THERMAL type=DEVICE_TYPE uuid=DEVICE_UUID""",
    "streams": "num=NUM_STREAMS",
    "log": "level=LOG_LEVEL",
    "intel_auto": """device_bind_buffer devices_utilization_threshold enable_runtime_fallback
        enable_startup_fallback low_power_device perf_curve_table schedule_policy""",
    "intel_cpu": """denormals_optimization=CPU_DENORMALS_OPTIMIZATION tbb_partitioner
        sparse_weights_decompression_rate=CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE""",
    "intel_gpu": """device_max_alloc_mem_size=GPU_DEVICE_MAX_ALLOC_MEM_SIZE
        device_total_mem_size=GPU_DEVICE_TOTAL_MEM_SIZE
        disable_winograd_convolution=GPU_DISABLE_WINOGRAD_CONVOLUTION
        enable_loop_unrolling=GPU_ENABLE_LOOP_UNROLLING
        execution_units_count=GPU_EXECUTION_UNITS_COUNT memory_statistics=GPU_MEMORY_STATISTICS
        uarch_version=GPU_UARCH_VERSION""",
}

MISSING = {
    "CACHE_ENCRYPTION_CALLBACKS": "the cache is not encrypted; put CACHE_DIR on a disk that is",
    "COMPILED_BLOB": "give the blob to import_model",
    "DEVICE_PROPERTIES": "use set_property(device, {...}) for each device",
    "MODEL_PTR": "give the model to compile_model",
    "WEIGHTS_PATH": "an ONNX model names the files of its weights itself",
}
"""OpenVINO's properties that change what is computed or protected, with what to do instead."""

_ONLY_READ = frozenset(
    [
        "COMPATIBILITY_CHECK",
        "DEVICE_GOPS",
        "DEVICE_LUID",
        "DEVICE_PCI_INFO",
        "DEVICE_THERMAL",
        "DEVICE_UUID",
        "GPU_DEVICE_MAX_ALLOC_MEM_SIZE",
        "GPU_DEVICE_TOTAL_MEM_SIZE",
        "GPU_EXECUTION_UNITS_COUNT",
        "GPU_MEMORY_STATISTICS",
        "GPU_UARCH_VERSION",
        "MAX_BATCH_SIZE",
        "OPTIMAL_BATCH_SIZE",
        "RUNTIME_REQUIREMENTS",
        "MULTI_DEVICE_PRIORITIES",
    ]
)


class Name(str):
    """A property's name; called with a value, the pair of name and value."""

    __slots__ = ()

    def __call__(self, *value: Any) -> Any:
        if len(value) > 1:
            raise TypeError(f"{self} takes one value, found {len(value)}")
        return (str(self), value[0]) if value else str(self)


class Word(str, Enum):
    """A value of a property: the text itself."""

    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class Num(str):
    """A number of streams: `Num(4)`, `Num.AUTO`."""

    AUTO: Num
    __slots__ = ()

    def to_integer(self) -> int:
        """The number; -1 for AUTO."""
        return -1 if self == "AUTO" else int(self)


Num.AUTO = Num("AUTO")


def _words(name: str, *values: str) -> Any:
    made: Any = Word
    return made(name, [(value, value) for value in values])


_VALUES: dict[str, dict[str, Any]] = {
    "": {
        "CacheMode": _words("CacheMode", "OPTIMIZE_SIZE", "OPTIMIZE_SPEED"),
        "WorkloadType": _words("WorkloadType", "DEFAULT", "EFFICIENT"),
    },
    "hint": {
        "ExecutionMode": _words("ExecutionMode", "PERFORMANCE", "ACCURACY"),
        "ModelDistributionPolicy": _words(
            "ModelDistributionPolicy", "TENSOR_PARALLEL", "PIPELINE_PARALLEL"
        ),
        "PerformanceMode": _words(
            "PerformanceMode", "LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"
        ),
        "Priority": _words("Priority", "LOW", "MEDIUM", "HIGH", "DEFAULT"),
        "SchedulingCoreType": _words("SchedulingCoreType", "ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"),
    },
    "device": {
        "Capability": _words(
            "Capability",
            *("FP32", "BF16", "FP16", "INT8", "INT16", "BIN", "WINOGRAD", "EXPORT_IMPORT"),
        ),
    },
    "streams": {"Num": Num},
    "log": {"Level": _words("Level", "NO", "ERR", "WARNING", "INFO", "DEBUG", "TRACE")},
    "intel_auto": {
        "SchedulePolicy": _words("SchedulePolicy", "DEFAULT", "ROUND_ROBIN", "DEVICE_PRIORITY")
    },
    "intel_cpu": {"TbbPartitioner": _words("TbbPartitioner", "AUTO", "STATIC")},
}


def _parsed(text: str) -> dict[str, Name]:
    pairs = (item.partition("=") for item in text.split())
    return {word: Name(name or word.upper()) for word, _, name in pairs}


_NAMES = {module: _parsed(text) for module, text in _OF_MODULE.items()}

# Of earlier versions, and those that only text names.
_OTHERS = """AFFINITY CONFIG_FILE CPU_BIND_THREAD CPU_THREADS_NUM CPU_THROUGHPUT_STREAMS
    DYN_BATCH_ENABLED EXCLUSIVE_ASYNC_REQUESTS GPU_ENABLE_LARGE_ALLOCATIONS
    GPU_ENABLE_LORA_OPERATION GPU_HOST_TASK_PRIORITY GPU_QUEUE_PRIORITY GPU_QUEUE_THROTTLE
    GPU_THROUGHPUT_STREAMS"""

WITHOUT_EFFECT = (
    frozenset({str(name) for names in _NAMES.values() for name in names.values()})
    | frozenset(_OTHERS.split())
) - (_ONLY_READ | MISSING.keys())
"""What OpenVINO takes; clinfer's own are looked for first."""


def member(module: str, name: str) -> Any:
    """A name, or a class of values, of one of the modules. Raises `AttributeError`."""
    found = _NAMES[module].get(name, _VALUES.get(module, {}).get(name))
    if found is None:
        place = f"clinfer.properties.{module}".removesuffix(".")
        raise AttributeError(
            f"module '{place}' has no attribute {name!r}; it has {listed(members(module), 40)}"
        )
    return found


def members(module: str) -> list[str]:
    """The names that one of the modules has."""
    return sorted({*_NAMES[module], *_VALUES.get(module, {})})
