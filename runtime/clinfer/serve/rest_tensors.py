"""Inference over REST: a body of JSON, with tensors behind it where the client wants them raw."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from clinfer.errors import InputError
from clinfer.serve import tensors
from clinfer.serve.refusals import INVALID, TOO_LARGE, UNSUPPORTED, RefusedError
from clinfer.serve.service import Answer, Call, Given

LENGTH_HEADER = "inference-header-content-length"
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Request(NamedTuple):
    """`binary` names the outputs that are to be raw; `all_binary` counts for those not named."""

    call: Call
    binary: Mapping[str, bool]
    all_binary: bool


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without `content-encoding`; never more than `limit` bytes are made of it."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise RefusedError(UNSUPPORTED, f"content-encoding {encoding!r}: expected gzip or deflate")
    unfolding = zlib.decompressobj(_WINDOWS[encoding])
    try:
        whole = unfolding.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedError(INVALID, f"the body is no {encoding}: {error}") from None
    if len(whole) > limit:
        raise RefusedError(TOO_LARGE, f"the body unfolds to more than {limit} bytes")
    if not unfolding.eof or unfolding.unused_data:
        raise RefusedError(INVALID, f"the body is not one whole stream of {encoding}")
    return whole


def read(model: str, version: str, body: bytes, headers: Mapping[str, str]) -> Request:
    """The request in a body. Raises `InputError` for what is not as the protocol says."""
    head = headers.get(LENGTH_HEADER)
    if head is None:
        size = len(body)
    elif head.isascii() and head.isdecimal() and len(head) < 20 and int(head) <= len(body):
        size = int(head)
    else:
        raise InputError(f"{LENGTH_HEADER}: expected at most {len(body)}, found {head!r}")
    try:
        document = json.loads(body[:size])
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON: {error}") from None
    top = _Object("the body", document)
    rest = _Rest(memoryview(body)[size:])
    inputs = [_given(_Object("an input", item), rest) for item in top.get("inputs", list)]
    rest.require_empty()
    parameters = top.parameters()
    outputs = top.get("outputs", list, None)
    asked = [_Object("an output", item) for item in outputs or ()]
    call = Call(
        model,
        version,
        top.get("id", str, ""),
        inputs,
        [item.get("name", str) for item in asked] if asked else None,
        parameters,
        len(body),
    )
    binary = {}
    for item in asked:
        known = item.parameters()
        if known.get("classification"):
            raise InputError("the classification extension is not supported")
        if "shared_memory_region" in known:
            raise InputError("the shared memory extensions are not supported")
        if "binary_data" in known:
            binary[item.get("name", str)] = known["binary_data"] is True
    return Request(call, binary, parameters.get("binary_data_output") is True)


def write(request: Request, answer: Answer) -> tuple[bytes, dict[str, str]]:
    """The answer's body and its headers."""
    rows, raws = [], []
    for port, array in answer.outputs:
        row: dict[str, Any] = {
            "name": port.name,
            "datatype": tensors.DATATYPES[port.dtype],
            "shape": list(array.shape),
        }
        if request.binary.get(port.name, request.all_binary):
            raws.append(tensors.to_raw(array))
            row["parameters"] = {"binary_data_size": len(raws[-1])}
            rows.append(json.dumps(row))
        else:
            rows.append(f'{json.dumps(row)[:-1]}, "data": {tensors.to_json(array)}}}')
    top = {"model_name": answer.version.name, "model_version": str(answer.version.number)}
    if request.call.id:
        top["id"] = request.call.id
    head = f'{json.dumps(top)[:-1]}, "outputs": [{", ".join(rows)}]}}'.encode()
    if not raws:
        return head, {"content-type": "application/json"}
    kind = {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(head))}
    return b"".join((head, *raws)), kind


class _Object:
    """A JSON object whose fields are looked at one by one."""

    def __init__(self, what: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{what}: expected an object, found {type(value).__name__}")
        self._what = what
        self._value = value

    def get(self, name: str, kind: type, *default: Any) -> Any:
        """A field of that type. Raises `InputError` where it is missing and has no default."""
        if name not in self._value and default:
            return default[0]
        found = self._value.get(name)
        if type(found) is not kind:
            expected = f"expected {name!r}, of type {kind.__name__}"
            raise InputError(f"{self._what}: {expected}, found {type(found).__name__}")
        return found

    def parameters(self) -> dict[str, Any]:
        """The field of that name; empty where there is none."""
        found: dict[str, Any] = self.get("parameters", dict, {})
        return found

    def values(self) -> Any:
        """The field 'data'."""
        return self._value.get("data")


class _Rest:
    """The bytes behind the JSON, taken piece by piece."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def take(self, name: str, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._view) - self._at:
            raise InputError(f"input '{name}': binary_data_size {size!r} is not what the body has")
        self._at += size
        return self._view[self._at - size : self._at]

    def require_empty(self) -> None:
        if self._at != len(self._view):
            raise InputError(f"{len(self._view) - self._at} bytes follow that no input names")


def _given(item: _Object, rest: _Rest) -> Given:
    name, parameters = item.get("name", str), item.parameters()
    if "shared_memory_region" in parameters:
        raise InputError("the shared memory extensions are not supported")
    raw = None
    if "binary_data_size" in parameters:
        raw = rest.take(name, parameters["binary_data_size"])
    return Given(name, item.get("datatype", str), item.get("shape", list), raw, item.values())
