"""What the server costs, on loopback and bounded, next to ONNX Runtime behind the same front.

    python tools/bench_serve.py load [--requests 2000] [--concurrency 1 8 32] [--rounds 3]
    python tools/bench_serve.py start resnet50.onnx [--rounds 5]
    python tools/bench_serve.py soak [--seconds 1200]

`load`: throughput, p50, p99 and the server's processor time per request, of the digits model and of
one whose weights take longer to read than to multiply with, over gRPC and REST. The servers take
turns in each round: clinfer, clinfer that gathers, and ONNX Runtime in the place of clinfer's
models in the same server. `start`: from the process's start until /v2/health/ready, with a warm
cache, and clinfer's part. `soak`: mixed load over both protocols with cancelled, malformed and
oversized requests and a model loaded anew in the middle; every answer is checked, and memory,
threads and descriptors are compared from the first quarter on.
Needs the extras `serve` and `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits.onnx"
WIDE = (1024, 2048, 2048, 512)
GATHERS = {"max_batch_size": 32, "dynamic_batching": {"max_queue_delay_microseconds": 0}}
INFER = "/inference.GRPCInferenceService/ModelInfer"
SERVERS = {"clinfer": {}, "gathering": GATHERS, "onnxruntime": {}}
MOST_SECONDS = 600.0


def main() -> None:
    """One of the three, or (for itself) a server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    load = commands.add_parser("load")
    load.add_argument("--requests", type=int, default=2000, help="most per measurement")
    load.add_argument("--seconds", type=float, default=4.0, help="most per measurement")
    load.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    load.add_argument("--rounds", type=int, default=3)
    load.add_argument("--models", nargs="+", default=["digits", "wide"])
    load.add_argument("--protocols", nargs="+", default=["grpc", "rest"])
    load.add_argument("--output", type=Path)
    load.set_defaults(run=bench_load)
    start = commands.add_parser("start")
    start.add_argument("model", type=Path)
    start.add_argument("--rounds", type=int, default=5)
    start.set_defaults(run=bench_start)
    soaked = commands.add_parser("soak")
    soaked.add_argument("--seconds", type=float, default=1200.0)
    soaked.set_defaults(run=soak)
    served = commands.add_parser("ort")
    served.add_argument("repository", type=Path)
    served.set_defaults(run=serve_onnxruntime)
    options = parser.parse_args()
    options.run(options)


# --- servers ----------------------------------------------------------------------------------


@contextmanager
def served(repository: Path, cache: Path, name: str) -> Iterator[SimpleNamespace]:
    """A server in a process of its own: `port`, `grpc_port`, `pid`; ended afterwards."""
    if name == "onnxruntime":
        command = [sys.executable, __file__, "ort", str(repository)]
    else:
        command = [sys.executable, "-m", "clinfer", "serve", str(repository), "--json"]
        command += ["--port", "0", "--grpc-port", "0", "--device", "CPU", "--cache-dir", str(cache)]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise SystemExit(errors.read())
            text += line
        found = SimpleNamespace(**json.loads(text), pid=process.pid)
        while not is_ready(found.port):
            time.sleep(0.005)
            if process.poll() is not None or time.perf_counter() - begin > MOST_SECONDS:
                errors.seek(0)
                raise SystemExit(errors.read())
        found.seconds = time.perf_counter() - begin
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    errors.seek(0)
    lines = [json.loads(line) for line in errors if line.startswith("{")]
    found.loaded = [line["load_seconds"] for line in lines if line["event"] == "loaded"]


def is_ready(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def serve_onnxruntime(options: argparse.Namespace) -> None:
    """The same server with ONNX Runtime's sessions in the place of clinfer's models."""
    import onnxruntime

    from clinfer.ports import Port
    from clinfer.serve import models
    from clinfer.serve.logs import to_stderr
    from clinfer.serve.server import Server
    from clinfer.serve.settings import Settings

    types = {"tensor(float)": "float32"}

    def ports(given: Any, kind: str) -> list[Port]:
        return [Port(p.name, tuple(p.shape), types[p.type], n, kind) for n, p in enumerate(given)]

    def load(core: Any, path: Path, config: Any, device: str) -> Any:
        begin = time.perf_counter()
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = ports(session.get_inputs(), "input")

        def run(arrays: Any) -> Any:
            given = {port.name: array for port, array in zip(inputs, arrays, strict=True)}
            return session.run(None, given)

        return SimpleNamespace(
            path=path,
            compiled=(),
            counts=(),
            runs=[run],
            inputs=inputs,
            outputs=ports(session.get_outputs(), "output"),
            seconds=time.perf_counter() - begin,
        )

    models.load = load
    to_stderr()
    server = Server(Settings(options.repository, port=0, grpc_port=0))
    server.run(lambda s: print(json.dumps({"port": s.port, "grpc_port": s.grpc_port}), flush=True))


def repository(folder: Path, config: dict[str, Any]) -> Path:
    """The two models; `config` is for both."""
    import shutil

    for name in ("digits", "wide"):
        (folder / name / "1").mkdir(parents=True)
        if config:
            (folder / name / "config.json").write_text(json.dumps(config))
    shutil.copy(DIGITS, folder / "digits" / "1" / "model.onnx")
    (folder / "wide" / "1" / "model.onnx").write_bytes(wide())
    return folder


def wide() -> bytes:
    """Layers of matrices, 29 MB in all, with ReLU between them: x [rows, 1024] -> y [rows, 512]."""
    from onnx import TensorProto, helper, numpy_helper

    generator, nodes, weights, last = np.random.default_rng(0), [], [], "x"
    for number, sizes in enumerate(pairwise(WIDE)):
        matrix = generator.standard_normal(sizes).astype(np.float32) / sizes[0] ** 0.5
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"]))
        last = "y" if number == len(WIDE) - 2 else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"m{number}"], [last]))
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", WIDE[0]), ("y", WIDE[-1]))
    ]
    graph = helper.make_graph(nodes, "wide", sides[:1], sides[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


# --- clients ----------------------------------------------------------------------------------

Ask = Callable[[], Awaitable[bytes]]


def asked(model: str, array: np.ndarray, name: str = "x") -> bytes:
    """A request of gRPC, ready to be sent."""
    from clinfer.serve.messages import message

    request = message("ModelInferRequest")(model_name=model)
    request.inputs.add(name=name, datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def posted(model: str, array: np.ndarray, name: str = "x") -> bytes:
    """A request of REST with the tensor raw, ready to be sent."""
    item = {"name": name, "shape": array.shape, "datatype": "FP32"}
    item["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: localhost\r\n"
        f"inference-header-content-length: {len(head)}\r\n"
        f"content-length: {len(head) + array.nbytes}\r\n\r\n"
    ).encode() + head + array.tobytes()  # fmt: skip


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of an answer of REST."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(size)


async def measured(
    ports: Any, protocol: str, sent: bytes, many: int, most: Any
) -> dict[str, float]:
    """Requests by `many` clients at a time: per second, and milliseconds."""
    times: list[float] = []
    channels: list[Any] = []
    begin, used = time.perf_counter(), processor_seconds(ports.pid)

    async def asking() -> Ask:
        if protocol == "grpc":
            if not channels:
                channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc_port}"))
            call = channels[0].unary_unary(INFER)
            return lambda: call(sent)
        reader, writer = await asyncio.open_connection("127.0.0.1", ports.port)
        channels.append(writer)

        async def post() -> bytes:
            writer.write(sent)
            status, body = await reply(reader)
            assert status == 200, body
            return body

        return post

    async def client() -> None:
        ask = await asking()
        while len(times) < most.requests and time.perf_counter() - begin < most.seconds:
            start = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(client() for _ in range(many)))
    seconds = time.perf_counter() - begin
    for channel in channels:
        closing = channel.close()
        if closing is not None:
            await closing
    ordered = sorted(times)
    return {
        "per_second": len(times) / seconds,
        "cpu_us": 1e6 * (processor_seconds(ports.pid) - used) / len(times),
        "p50_ms": 1e3 * ordered[len(ordered) // 2],
        "p99_ms": 1e3 * ordered[len(ordered) * 99 // 100],
    }


def bench_load(options: argparse.Namespace) -> None:
    """Prints a row for each model, protocol, concurrency and server; medians of the rounds."""
    images = np.random.default_rng(0).random(digits_shape(), np.float32)
    rows = np.random.default_rng(0).random((1, WIDE[0]), np.float32)
    sent = {
        ("digits", "grpc"): asked("digits", images, digits_name()),
        ("digits", "rest"): posted("digits", images, digits_name()),
        ("wide", "grpc"): asked("wide", rows),
        ("wide", "rest"): posted("wide", rows),
    }
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="clinfer-serve-") as folder, ExitStack() as stack:
        base = Path(folder)
        running = {
            name: stack.enter_context(served(repository(base / name, config), base / "c", name))
            for name, config in SERVERS.items()
        }
        for _ in range(options.rounds):
            for (model, protocol), content in sent.items():
                if model not in options.models or protocol not in options.protocols:
                    continue
                for many in options.concurrency:
                    for name, ports in running.items():
                        one = asyncio.run(measured(ports, protocol, content, many, options))
                        key = f"{model} {protocol} {many} {name}"
                        for what, value in one.items():
                            found.setdefault(key, {}).setdefault(what, []).append(value)
    medians = {k: {n: statistics.median(v) for n, v in row.items()} for k, row in found.items()}
    print("model  protocol clients server       per second   p50 ms   p99 ms   CPU us")
    for key, row in medians.items():
        model, protocol, many, name = key.split()
        print(
            f"{model:6} {protocol:8} {many:>7} {name:12} {row['per_second']:10.0f}"
            f" {row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {row['cpu_us']:8.0f}"
        )
    print(f"load average {os.getloadavg()[0]:.1f}")
    if options.output:
        options.output.write_text(json.dumps(medians, indent=2) + "\n")


def processor_seconds(pid: int) -> float:
    """What a process has used of processors: less than times does it depend on others' load."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def digits_shape() -> list[int]:
    return [size if isinstance(size, int) else 1 for size in digits_port().shape]


def digits_name() -> str:
    return str(digits_port().name)


def digits_port() -> Any:
    import clinfer

    return clinfer.Core().read_model(DIGITS).inputs[0]


def bench_start(options: argparse.Namespace) -> None:
    """Seconds from the process's start until it is ready, with a warm cache."""
    import shutil

    with tempfile.TemporaryDirectory(prefix="clinfer-serve-") as folder:
        place = Path(folder) / "models" / options.model.stem / "1"
        place.mkdir(parents=True)
        shutil.copy(options.model, place / "model.onnx")
        rows = []
        for turn in range(options.rounds + 1):
            with served(place.parent.parent, Path(folder) / "cache", "clinfer") as found:
                pass
            if turn:
                rows.append((found.seconds, found.loaded[0]))
            print(f"{'warm' if turn else 'cold'}: ready {found.seconds:.2f} s, "
                  f"clinfer's part {1e3 * found.loaded[0]:.0f} ms", flush=True)  # fmt: skip
        ready, part = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"median of {len(rows)}: ready {ready:.2f} s, clinfer's part {1e3 * part:.0f} ms")


# --- soak -------------------------------------------------------------------------------------


def soak(options: argparse.Namespace) -> None:
    """Ends with exit code 1 where an answer is wrong or lost, or something grows."""
    with tempfile.TemporaryDirectory(prefix="clinfer-serve-") as folder:
        base = Path(folder)
        with served(repository(base / "r", GATHERS), base / "cache", "clinfer") as found:
            faults = asyncio.run(_soak(found, options.seconds))
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


async def _soak(ports: Any, seconds: float) -> list[str]:
    from clinfer.serve.messages import message

    parse = message("ModelInferResponse").FromString
    answers = {}
    generator = np.random.default_rng(0)
    arrays = [generator.random((1, WIDE[0]), np.float32) for _ in range(16)]
    counts, faults, times = dict.fromkeys(("right", "left", "refused"), 0), [], []
    end = time.perf_counter() + seconds

    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc_port}") as channel:
        call = channel.unary_unary(INFER)
        for number, array in enumerate(arrays):
            answers[number] = np.frombuffer(
                parse(await call(asked("wide", array))).raw_output_contents[0], np.float32
            )

        async def right(number: int) -> None:
            begin = time.perf_counter()
            got = parse(await call(asked("wide", arrays[number]), timeout=60))
            times.append(time.perf_counter() - begin)
            found = np.frombuffer(got.raw_output_contents[0], np.float32)
            if not np.allclose(found, answers[number], rtol=1e-4, atol=1e-5):
                faults.append(f"a wrong answer for {number}")
            counts["right"] += 1

        async def posting(number: int) -> None:
            begin = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", ports.port)
            writer.write(posted("wide", arrays[number]))
            status, body = await reply(reader)
            times.append(time.perf_counter() - begin)
            writer.close()
            found = np.frombuffer(body[-answers[number].nbytes :], np.float32)
            if status != 200 or not np.allclose(found, answers[number], rtol=1e-4, atol=1e-5):
                faults.append(f"a wrong answer of REST for {number}: {status}")
            counts["right"] += 1

        async def left(number: int) -> None:
            work = call(asked("wide", arrays[number]))
            await asyncio.sleep(random.random() * 0.01)
            work.cancel()
            reader, writer = await asyncio.open_connection("127.0.0.1", ports.port)
            content = posted("wide", arrays[number])
            writer.write(content[: random.randrange(1, len(content))])
            await writer.drain()
            if random.random() < 0.5 and writer.can_write_eof():
                writer.write_eof()
                await reader.read()
            writer.close()
            counts["left"] += 1

        async def refused(number: int) -> None:
            try:
                await call(random.randbytes(50))
            except grpc.RpcError:
                counts["refused"] += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", ports.port)
            size = random.choice([10, 10**12])
            writer.write(
                f"POST /v2/models/wide/infer HTTP/1.1\r\nhost: localhost\r\n"
                f"content-length: {size}\r\n\r\n0123456789".encode()
            )
            status, _ = await reply(reader)
            if status not in (400, 413):
                faults.append(f"a malformed request got {status}")
            writer.close()

        async def client(number: int) -> None:
            while time.perf_counter() < end:
                kind = random.choices((right, posting, left, refused), (5, 3, 1, 1))[0]
                try:
                    await kind(random.randrange(len(arrays)))
                except (grpc.RpcError, OSError, asyncio.IncompleteReadError) as error:
                    faults.append(f"{kind.__name__}: {error!r}"[:300])
                await asyncio.sleep(0.02)  # about half of what the server can do

        async def reload() -> None:
            load = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
            request = message("RepositoryModelLoadRequest")(model_name="wide")
            for _ in range(2):  # while it warms up, and in the middle
                await load(request.SerializeToString())
                await asyncio.sleep(seconds / 2)

        sizes: list[tuple[int, int, int]] = []

        async def watch() -> None:
            while time.perf_counter() < end:
                sizes.append(_sizes(ports.pid))
                await asyncio.sleep(seconds / 40)

        await asyncio.gather(watch(), reload(), *(client(n) for n in range(4)))
    ordered = sorted(times)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    print(f"{counts}, load average {os.getloadavg()[0]:.1f}")
    print(f"p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms, {p99 / p50:.1f} times")
    quarter = len(sizes) // 4
    for name, early, late in zip(
        ("memory, MB", "threads", "descriptors"),
        map(max, zip(*sizes[quarter : 2 * quarter], strict=True)),
        map(max, zip(*sizes[-quarter:], strict=True)),
        strict=True,
    ):
        print(f"{name}: at most {early} in the second quarter, {late} in the last")
        if late > early * 1.05 + 5:
            faults.append(f"{name} grew from {early} to {late}")
    return faults


def _sizes(pid: int) -> tuple[int, int, int]:
    """Resident memory in MB, threads and descriptors of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    known = dict(line.split(":", 1) for line in lines)
    memory = int(known["VmRSS"].split()[0]) // 1024
    return memory, int(known["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


if __name__ == "__main__":
    main()
