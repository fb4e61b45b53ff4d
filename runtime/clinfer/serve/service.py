"""What REST and gRPC have in common: who may ask, and one inference from tensors to tensors."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from random import getrandbits
from time import perf_counter
from typing import Any, NamedTuple

from clinfer.errors import InputError, listed
from clinfer.ports import Port, index_of
from clinfer.serve import tensors, tracing
from clinfer.serve.logs import LOG
from clinfer.serve.metrics import Metrics
from clinfer.serve.models import Models, Version
from clinfer.serve.refusals import (
    CANCELLED,
    FORBIDDEN,
    INTERNAL,
    UNAUTHENTICATED,
    Kind,
    RefusedError,
    kind_of,
)
from clinfer.serve.settings import Settings

EXTENSIONS = (
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_IN_LOOP = 256 * 1024
"""Bytes that the event loop's thread decodes itself; more than that would keep others waiting."""
_REFUSED_PARAMETERS = frozenset(
    ["sequence_id", "sequence_start", "sequence_end", "priority", "shared_memory_region"]
)
_LEAST_SECONDS = 1e-3


class Given(NamedTuple):
    """An input as a client gives it: `raw` bytes, else `values`."""

    name: str
    datatype: str
    shape: Sequence[Any]
    raw: bytes | memoryview | None
    values: Any = None


class Call(NamedTuple):
    """An inference request of either protocol; `outputs` None: all."""

    model: str
    version: str
    id: str
    inputs: Sequence[Given]
    outputs: Sequence[str] | None
    parameters: Mapping[str, Any]
    nbytes: int


class Caller(NamedTuple):
    """Who asks, and by what: header names are in lower case."""

    protocol: str
    headers: Mapping[str, str]
    request_id: str
    left: float | None = None


class Answer(NamedTuple):
    """The outputs that were asked for, in that order."""

    version: Version
    outputs: list[tuple[Port, tensors.Array]]


def request_id(headers: Mapping[str, str]) -> str:
    """The id that a client gives in `x-request-id`, where it is one; else a new one."""
    given = headers.get("x-request-id", "")
    return given if given and _ID.fullmatch(given) else f"{getrandbits(128):032x}"


class Service:
    """What both fronts call."""

    def __init__(self, settings: Settings, models: Models, metrics: Metrics) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics

    def require_key(self, headers: Mapping[str, str]) -> None:
        """Raises `RefusedError` where the key is not that of the configuration.

        It is a bearer token, `x-api-key`, or the password of HTTP's basic authentication, which
        browsers know.
        """
        wanted = self.settings.api_key
        if not wanted:
            return
        scheme, _, value = headers.get("authorization", "").partition(" ")
        found = headers.get("x-api-key", "")
        if scheme.lower() == "bearer":
            found = value.strip()
        elif scheme.lower() == "basic":
            found = _password(value)
        if not hmac.compare_digest(found.encode(), wanted.encode()):
            raise RefusedError(UNAUTHENTICATED, "the API key is missing or wrong")

    def require_control(self, parameters: Mapping[str, Any]) -> None:
        """Raises `RefusedError` where clients may not load and unload models."""
        if not self.settings.may_control:
            raise RefusedError(
                FORBIDDEN, "loading and unloading is off: start the server with --control on"
            )
        extra = {name for name in parameters if name != "unload_dependents"}
        if extra:
            raise InputError(f"the parameter {listed(sorted(extra))} is not taken: models come "
                             "from the repository as they are there")  # fmt: skip

    async def infer(self, call: Call, caller: Caller) -> Answer:
        """One inference. Raises errors that `refusals` has codes for."""
        begin = perf_counter()
        version = self.models.find(call.model, call.version)
        kind: Kind | None = None
        try:
            with tracing.span(
                f"infer {version.name}",
                caller.headers,
                model=version.name,
                version=version.number,
                protocol=caller.protocol,
                request_id=caller.request_id,
            ):
                return await self._infer(version, call, caller, begin)
        except asyncio.CancelledError:
            kind = CANCELLED
            raise
        except Exception as error:
            kind = kind_of(error)
            if kind is INTERNAL:
                self.models.failed(f"infer {version.name}", error, request_id=caller.request_id)
            raise
        finally:
            self._count(version, caller, kind, perf_counter() - begin)

    async def _infer(self, version: Version, call: Call, caller: Caller, begin: float) -> Answer:
        wanted = self._outputs(version, call)
        seconds = self._seconds(call, caller)
        if call.nbytes <= _IN_LOOP:
            arrays = _arrays(version, call)
        else:
            arrays = await asyncio.to_thread(_arrays, version, call)
            if version.scheduler.is_closing:  # meanwhile: another may have taken its place
                another = self.models.find(call.model, call.version)
                return await self._infer(another, call, caller, begin)
        version.counts.observe("decode", perf_counter() - begin)
        outputs = await version.scheduler.submit(arrays, seconds)
        ports = version.loaded.outputs
        return Answer(version, [(ports[index], outputs[index]) for index in wanted])

    def _outputs(self, version: Version, call: Call) -> Sequence[int]:
        ports = version.loaded.outputs
        if call.outputs is None:
            return range(len(ports))
        return [index_of(ports, name, "output") for name in call.outputs]

    def _seconds(self, call: Call, caller: Caller) -> float:
        """How long the client waits: the least of its deadline, its `timeout` and the server's."""
        seconds = self.settings.timeout
        if call.parameters:
            refused = _REFUSED_PARAMETERS & call.parameters.keys()
            if refused:
                raise InputError(f"the parameter {listed(sorted(refused))} is not supported")
            timeout = call.parameters.get("timeout", 0)  # in microseconds, as Triton has it
            if type(timeout) is not int or not 0 <= timeout < 2**64:
                raise InputError(f"timeout: expected microseconds, found {timeout!r}"[:200])
            seconds = min(seconds, timeout / 1e6 or seconds)
        if caller.left is not None:
            seconds = min(seconds, caller.left)
        return max(_LEAST_SECONDS, seconds)

    def _count(self, version: Version, caller: Caller, kind: Kind | None, seconds: float) -> None:
        code = "OK" if kind is None else kind.grpc
        version.counts.ended(caller.protocol, code, seconds)
        if self.settings.access_log or (kind is not None and kind is not CANCELLED):
            LOG.info(
                "request",
                extra={
                    "request_id": caller.request_id,
                    "protocol": caller.protocol,
                    "model": version.name,
                    "version": version.number,
                    "code": code,
                    "seconds": round(seconds, 6),
                },
            )


def _arrays(version: Version, call: Call) -> list[tensors.Array]:
    """The arrays for a model's inputs, in its order; each in the type and rank of its port."""
    ports = version.loaded.inputs
    found: dict[int, tensors.Array] = {}
    for given in call.inputs:
        index = index_of(ports, given.name, "input")
        if index in found:
            raise InputError(f"input '{given.name}' is given twice")
        port = ports[index]
        shape = tensors.checked_shape(port, given.datatype, given.shape)
        if given.raw is not None:
            found[index] = tensors.from_raw(port, shape, given.raw)
        else:
            found[index] = tensors.from_values(port, shape, given.values)
    missing = [repr(port.name) for index, port in enumerate(ports) if index not in found]
    if missing:
        raise InputError(f"no value for input {listed(missing)}")
    return [found[index] for index in range(len(ports))]


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
