"""The messages of the Open Inference Protocol over gRPC, made from one table.

Names and numbers are those of open_inference_grpc.proto
(github.com/kserve/open-inference-protocol, Apache-2.0), and for the repository extension, model
configuration and streams those of Triton's grpc_service.proto, as their documentation gives them.
Messages that are nested there stand for themselves here: names are not on the wire.

They live in a pool of their own, so that a client of the protocol may be in the same process, and
are made by the protobuf that is installed: no generated code, which would want one version of it.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# field = number: type; a star repeats it, braces make a map from strings, a bar a choice of one.
_TABLE = """
ServerLiveRequest:
ServerLiveResponse: live=1:bool
ServerReadyRequest:
ServerReadyResponse: ready=1:bool
ModelReadyRequest: name=1:string version=2:string
ModelReadyResponse: ready=1:bool
ServerMetadataRequest:
ServerMetadataResponse: name=1:string version=2:string extensions=3:string*
ModelMetadataRequest: name=1:string version=2:string
ModelMetadataResponse: name=1:string versions=2:string* platform=3:string
    inputs=4:TensorMetadata* outputs=5:TensorMetadata*
TensorMetadata: name=1:string datatype=2:string shape=3:int64*
InferParameter: bool_param=1:bool| int64_param=2:int64| string_param=3:string|
    double_param=4:double| uint64_param=5:uint64|
InferTensorContents: bool_contents=1:bool* int_contents=2:int32* int64_contents=3:int64*
    uint_contents=4:uint32* uint64_contents=5:uint64* fp32_contents=6:float*
    fp64_contents=7:double* bytes_contents=8:bytes*
ModelInferRequest: model_name=1:string model_version=2:string id=3:string
    parameters=4:InferParameter{} inputs=5:InferInputTensor* outputs=6:InferRequestedOutputTensor*
    raw_input_contents=7:bytes*
InferInputTensor: name=1:string datatype=2:string shape=3:int64* parameters=4:InferParameter{}
    contents=5:InferTensorContents
InferRequestedOutputTensor: name=1:string parameters=2:InferParameter{}
ModelInferResponse: model_name=1:string model_version=2:string id=3:string
    parameters=4:InferParameter{} outputs=5:InferOutputTensor* raw_output_contents=6:bytes*
InferOutputTensor: name=1:string datatype=2:string shape=3:int64* parameters=4:InferParameter{}
    contents=5:InferTensorContents
ModelStreamInferResponse: error_message=1:string infer_response=2:ModelInferResponse
ModelRepositoryParameter: bool_param=1:bool| int64_param=2:int64| string_param=3:string|
    bytes_param=4:bytes|
ModelStatisticsRequest: name=1:string version=2:string
ModelStatisticsResponse: model_stats=1:ModelStatistics*
ModelStatistics: name=1:string version=2:string last_inference=3:uint64 inference_count=4:uint64
    execution_count=5:uint64 inference_stats=6:InferStatistics batch_stats=7:InferBatchStatistics*
InferStatistics: success=1:StatisticDuration fail=2:StatisticDuration queue=3:StatisticDuration
    compute_input=4:StatisticDuration compute_infer=5:StatisticDuration
    compute_output=6:StatisticDuration cache_hit=7:StatisticDuration cache_miss=8:StatisticDuration
InferBatchStatistics: batch_size=1:uint64 compute_input=2:StatisticDuration
    compute_infer=3:StatisticDuration compute_output=4:StatisticDuration
StatisticDuration: count=1:uint64 ns=2:uint64
RepositoryIndexRequest: repository_name=1:string ready=2:bool
RepositoryIndexResponse: models=1:ModelIndex*
ModelIndex: name=1:string version=2:string state=3:string reason=4:string
RepositoryModelLoadRequest: repository_name=1:string model_name=2:string
    parameters=3:ModelRepositoryParameter{}
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: repository_name=1:string model_name=2:string
    parameters=3:ModelRepositoryParameter{}
RepositoryModelUnloadResponse:
"""

_FIELD = re.compile(r"(\w+)=(\d+):(\w+)(\*|\{\}|\|)?")
_Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="clinfer/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    for line in _TABLE.replace("\n    ", " ").strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for field, number, kind, form in _FIELD.findall(fields):
            _add(message, field, int(number), kind, form)
    return file


def _add(message: Any, name: str, number: int, kind: str, form: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if form in ("*", "{}"):
        field.label = _Field.LABEL_REPEATED
    if form == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if form == "{}":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, "string", "")
        _add(entry, "value", 2, kind, "")
        kind = f"{message.name}.{entry.name}"
    if kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """The class of a message."""
    found = _POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)
