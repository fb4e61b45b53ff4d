"""The protocol over gRPC, in the event loop that REST is served from too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from clinfer import __version__
from clinfer.errors import InputError
from clinfer.serve import tensors
from clinfer.serve.logs import LOG
from clinfer.serve.messages import SERVICE, message
from clinfer.serve.refusals import INTERNAL, UNAVAILABLE, RefusedError, kind_of, words_of
from clinfer.serve.service import EXTENSIONS, Answer, Call, Caller, Given, Service, request_id
from clinfer.serve.statistics import statistics

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_OPEN = frozenset(["ServerLive", "ServerReady"])
_MESSAGE_ROOM = 64 * 1024
"""Bytes of a message around the tensors that the limit is for."""

_InferRequest = message("ModelInferRequest")
_InferResponse = message("ModelInferResponse")
_StreamResponse = message("ModelStreamInferResponse")


def server(service: Service) -> grpc.aio.Server:
    """A server without an address yet."""
    settings = service.settings
    made = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body + _MESSAGE_ROOM),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", settings.max_header),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", round(1e3 * settings.header_timeout)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    front = _Front(service)
    known: dict[str, Callable[..., Awaitable[Any]]] = {
        "ServerLive": front.server_live,
        "ServerReady": front.server_ready,
        "ServerMetadata": front.server_metadata,
        "ModelReady": front.model_ready,
        "ModelMetadata": front.model_metadata,
        "ModelStatistics": front.statistics,
        "ModelInfer": front.infer,
        "RepositoryIndex": front.index,
        "RepositoryModelLoad": front.load,
        "RepositoryModelUnload": front.unload,
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(front.guarded, name, handler, message(f"{name}Request").FromString),
            response_serializer=message(f"{name}Response").SerializeToString,
        )
        for name, handler in known.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        front.stream,
        response_serializer=_StreamResponse.SerializeToString,
    )
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return made


class _Front:
    """The handlers of the calls; each takes the request and who asks, and gives the response."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._models = service.models

    async def guarded(
        self,
        name: str,
        handler: Callable[..., Awaitable[Any]],
        parse: Callable[[bytes], Any],
        content: bytes,
        context: Any,
    ) -> Any:
        """Around every call: its id, the key, and errors as the protocol's codes."""
        caller = _caller(context)
        try:
            if name not in _OPEN:
                self._service.require_key(caller.headers)
            return await handler(_parsed(parse, content), caller)
        except Exception as error:
            code, words = self._refused(name, caller, error), words_of(error)
        await context.abort(code, words, (("x-request-id", caller.request_id),))

    def _refused(self, name: str, caller: Caller, error: Exception) -> grpc.StatusCode:
        """The code of an error, which the log is told of."""
        kind = kind_of(error)
        if kind is INTERNAL and "Infer" not in name:
            self._models.failed(name, error, request_id=caller.request_id)
        elif kind is not INTERNAL:
            extra = {"request_id": caller.request_id, "path": name, "error": words_of(error)}
            LOG.info("refused", extra={**extra, "code": kind.grpc})
        return grpc.StatusCode[kind.grpc]

    async def infer(self, request: Any, caller: Caller) -> Any:
        answer = await self._service.infer(_call(request), caller)
        begin = perf_counter()
        response = _response(request, answer)
        answer.version.counts.observe("encode", perf_counter() - begin)
        return response

    async def stream(self, contents: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """Triton's stream: one answer for each request, in their order; an error is an answer."""
        caller = _caller(context)._replace(left=None)
        try:
            self._service.require_key(caller.headers)
        except RefusedError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        async for content in contents:
            request = _InferRequest()
            try:
                request = _parsed(_InferRequest.FromString, content)
                yield _StreamResponse(infer_response=await self.infer(request, caller))
            except Exception as error:
                self._refused("ModelStreamInfer", caller, error)
                response = _StreamResponse(error_message=words_of(error))
                response.infer_response.id = request.id
                yield response

    async def server_live(self, request: Any, caller: Caller) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any, caller: Caller) -> Any:
        return message("ServerReadyResponse")(ready=self._models.is_ready)

    async def server_metadata(self, request: Any, caller: Caller) -> Any:
        return message("ServerMetadataResponse")(
            name="clinfer", version=__version__, extensions=EXTENSIONS
        )

    async def model_ready(self, request: Any, caller: Caller) -> Any:
        try:
            self._models.find(request.name, request.version)
        except RefusedError as error:
            if error.kind is not UNAVAILABLE:
                raise
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def model_metadata(self, request: Any, caller: Caller) -> Any:
        found = self._models.metadata(request.name, request.version)
        return message("ModelMetadataResponse")(**found)

    async def statistics(self, request: Any, caller: Caller) -> Any:
        chosen = self._models.chosen(request.name, request.version)
        return message("ModelStatisticsResponse")(**statistics(chosen))

    async def index(self, request: Any, caller: Caller) -> Any:
        return message("RepositoryIndexResponse")(models=self._models.index(request.ready))

    async def load(self, request: Any, caller: Caller) -> Any:
        self._service.require_control(request.parameters)
        await self._models.load(request.model_name)
        return message("RepositoryModelLoadResponse")()

    async def unload(self, request: Any, caller: Caller) -> Any:
        self._service.require_control(request.parameters)
        await self._models.unload(request.model_name)
        return message("RepositoryModelUnloadResponse")()


def _caller(context: Any) -> Caller:
    sent = context.invocation_metadata() or ()
    headers = {key: value for key, value in sent if isinstance(value, str)}
    return Caller("grpc", headers, request_id(headers), context.time_remaining())


def _parsed(parse: Callable[[bytes], Any], content: bytes) -> Any:
    """The message in these bytes. Raises `InputError`."""
    try:
        return parse(content)
    except DecodeError as error:
        raise InputError(f"the message cannot be read: {error}") from None


def _call(request: Any) -> Call:
    """The request, its tensors where they lie. Raises `InputError`."""
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InputError(f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs")
    inputs = []
    for index, item in enumerate(request.inputs):
        if "shared_memory_region" in item.parameters:
            raise InputError("the shared memory extensions are not supported")
        if raws and item.HasField("contents"):
            raise InputError(f"input '{item.name}' has both contents and raw_input_contents")
        raw = raws[index] if raws else None
        values = None if raws else _values(item)
        inputs.append(Given(item.name, item.datatype, list(item.shape), raw, values))
    for item in request.outputs:
        if item.parameters:
            raise InputError(f"output '{item.name}': the parameter {min(item.parameters)} is not "
                             "supported")  # fmt: skip
    return Call(
        request.model_name,
        request.model_version,
        request.id,
        inputs,
        [item.name for item in request.outputs] or None,
        {name: _parameter(value) for name, value in request.parameters.items()},
        sum(map(len, raws)) if raws else request.ByteSize(),
    )


def _values(item: Any) -> list[Any]:
    """An input's typed contents. Raises `InputError` for a type that has none."""
    known = _CONTENTS.get(item.datatype)
    if known is None:
        raise InputError(f"input '{item.name}' of {item.datatype!r} comes as raw_input_contents")
    for field, _ in item.contents.ListFields():
        if field.name != known:
            raise InputError(f"input '{item.name}': expected {known}, found {field.name}")
    return list(getattr(item.contents, known))


def _parameter(value: Any) -> Any:
    chosen = value.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(value, chosen)


def _response(request: Any, answer: Answer) -> Any:
    """The response, its tensors raw."""
    version = answer.version
    response = _InferResponse(
        model_name=version.name, model_version=str(version.number), id=request.id
    )
    for port, array in answer.outputs:
        datatype = tensors.DATATYPES[port.dtype]
        response.outputs.add(name=port.name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(tensors.to_raw(array))
    return response
