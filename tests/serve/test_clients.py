"""Real clients against the server: every type, in JSON and raw, over REST and gRPC."""

from __future__ import annotations

import httpx
import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer
from api.conftest import prepare
from api.made import finished
from serve.conftest import ROOT, place, serving

http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")

TYPES = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False, True], [False, False, True]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 1, 255], [7, 8, 9]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 1, 65535], [7, 8, 9]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 1, 2**32 - 1], [7, 8, 9]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 1, 2**64 - 1], [7, 8, 9]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[0, -128, 127], [7, 8, 9]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[0, -(2**15), 2**15 - 1], [7, 8, 9]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[0, -(2**31), 2**31 - 1], [7, 8, 9]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[0, -(2**63), 2**63 - 1], [7, 8, 9]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[0.1, -0.0, np.inf], [6e-8, 65504, 1]], np.float16)),
    "BF16": (
        TensorProto.BFLOAT16,
        np.array([[0.1, -0.0, np.inf], [1e-40, 3e38, 1]], ml_dtypes.bfloat16),
    ),
    "FP32": (TensorProto.FLOAT, np.array([[0.1, -0.0, -np.inf], [1e-45, 3e38, 1]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, -0.0, np.inf], [5e-324, 1e308, 1]])),
    "BYTES": (
        TensorProto.STRING,
        np.array([["", "a", "€ \n"], ["\u0000", "x" * 999, "'"]], dtype=object),
    ),
}


def echo(kind: int):
    """y = x, of any size."""
    node = helper.make_node("Identity", ["x"], ["y"], name="echo")
    sides = [helper.make_tensor_value_info(name, kind, ["rows", 3]) for name in "xy"]
    return finished(helper.make_graph([node], "echo", sides[:1], sides[1:]))


@pytest.fixture(scope="module")
def running(tmp_path_factory, cache):
    root = tmp_path_factory.mktemp("repository")
    place(root, "digits", ROOT / "examples" / "digits.onnx")
    for name, (kind, _) in TYPES.items():
        place(root, name.lower(), echo(kind))
    with pytest.MonkeyPatch.context() as patch:
        prepare("CPU", patch)
        with serving(root, cache) as found:
            yield found


@pytest.fixture(scope="module")
def rest(running):
    with http.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        yield client


@pytest.fixture(scope="module")
def calls(running):
    with grpc.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as client:
        yield client


@pytest.mark.parametrize("raw_out", [True, False])
@pytest.mark.parametrize("raw_in", [True, False])
@pytest.mark.parametrize("datatype", TYPES)
def test_rest_gives_every_type_back_bit_for_bit(rest, datatype, raw_in, raw_out):
    if datatype in ("FP16", "BF16") and not (raw_in and raw_out):
        pytest.skip("the client itself sends and reads these as raw bytes only")
    array = TYPES[datatype][1]
    given = http.InferInput("x", array.shape, datatype)
    if not (raw_in and raw_out) and array.dtype.kind == "f":
        array = np.where(np.isinf(array), 1, array)  # which JSON has no word for
    given.set_data_from_numpy(array, binary_data=raw_in)
    wanted = http.InferRequestedOutput("y", binary_data=raw_out)
    answer = rest.infer(datatype.lower(), [given], outputs=[wanted], request_id="7").as_numpy("y")
    same(answer, array)


@pytest.mark.parametrize("datatype", TYPES)
def test_grpc_gives_every_type_back_bit_for_bit(calls, datatype):
    array = TYPES[datatype][1]
    given = grpc.InferInput("x", array.shape, datatype)
    given.set_data_from_numpy(array)
    result = calls.infer(datatype.lower(), [given], request_id="7")
    assert result.get_response().id == "7"
    same(result.as_numpy("y"), array)


def test_halves_come_and_go_as_json(running):
    item = {"name": "x", "shape": [1, 3], "data": [0.5, -2.0, 0.099975586]}
    for datatype, last in (("FP16", 0.0999755859375), ("BF16", 0.10009765625)):
        answer = httpx.post(
            f"{running.url}/v2/models/{datatype.lower()}/infer",
            json={"inputs": [{**item, "datatype": datatype}]},
        )
        assert answer.json()["outputs"][0]["data"] == [0.5, -2.0, last]


def same(answer, array):
    assert answer.shape == array.shape
    if array.dtype == object:
        texts = [item if isinstance(item, bytes) else item.encode() for item in answer.flat]
        assert texts == [item.encode() for item in array.flat]
    else:
        assert answer.dtype == array.dtype
        assert answer.tobytes() == array.tobytes()


def test_a_real_model_gives_the_bits_of_a_direct_call(rest, calls, running):
    images = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": running.server.settings.properties["CACHE_DIR"]})
    model = core.compile_model(ROOT / "examples" / "digits.onnx", "CPU")
    name = model.inputs[0].name
    images = images.reshape([5, *model.inputs[0].shape[1:]])
    expected = model({name: images})[0]
    for module, client in ((http, rest), (grpc, calls)):
        given = module.InferInput(name, images.shape, "FP32")
        given.set_data_from_numpy(images)
        found = client.infer("digits", [given]).as_numpy(model.outputs[0].name)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_bodies(rest, algorithm):
    array = np.ones((100, 3), np.float32)
    given = http.InferInput("x", array.shape, "FP32")
    given.set_data_from_numpy(array)
    found = rest.infer(
        "fp32",
        [given],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    same(found.as_numpy("y"), array)


def test_health_metadata_and_index(rest, calls):
    for client in (rest, calls):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("fp32")
        assert client.is_model_ready("fp32", "1")
        assert not client.is_model_ready("nothing") if client is rest else True
    metadata = rest.get_model_metadata("fp32")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert metadata["versions"] == ["1"]
    told = calls.get_model_metadata("fp32", as_json=True)
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert rest.get_server_metadata()["version"] == clinfer.__version__
    assert calls.get_server_metadata().name == "clinfer"
    names = {row["name"] for row in rest.get_model_repository_index()}
    assert names == {"digits", *(name.lower() for name in TYPES)}
    assert {row.name for row in calls.get_model_repository_index().models} == names


def test_loading_and_unloading(rest, calls):
    from tritonclient.utils import InferenceServerException

    given = {module: module.InferInput("x", [2, 3], "INT8") for module in (http, grpc)}
    for module, client in ((http, rest), (grpc, calls)):
        given[module].set_data_from_numpy(TYPES["INT8"][1])
        client.unload_model("int8")
        assert not client.is_model_ready("int8")
        with pytest.raises(InferenceServerException, match="unloaded"):
            client.infer("int8", [given[module]])
        client.load_model("int8")
        same(client.infer("int8", [given[module]]).as_numpy("y"), TYPES["INT8"][1])
        with pytest.raises(InferenceServerException, match="nothing"):
            client.load_model("nothing")
        with pytest.raises(InferenceServerException, match="config is not taken"):
            client.load_model("int8", config="{}")


def test_statistics(rest, calls):
    given = http.InferInput("x", [2, 3], "UINT16")
    given.set_data_from_numpy(TYPES["UINT16"][1])

    def rows():
        yield from rest.get_inference_statistics("uint16")["model_stats"]
        yield from calls.get_inference_statistics("uint16", as_json=True)["model_stats"]

    def told(row, stage):
        return int(row["inference_stats"][stage].get("count", 0))

    before = list(rows())
    rest.infer("uint16", [given])
    with pytest.raises(Exception, match="no output"):
        rest.infer("uint16", [given], outputs=[http.InferRequestedOutput("z")])
    for early, late in zip(before, rows(), strict=True):
        assert late["name"] == "uint16"
        assert int(late["execution_count"]) == int(early.get("execution_count", 0)) + 1
        assert int(late["inference_count"]) == int(early.get("inference_count", 0)) + 2
        for stage in ("success", "fail", "compute_infer"):
            assert told(late, stage) == told(early, stage) + 1
    assert len(rest.get_inference_statistics()["model_stats"]) == len(TYPES) + 1


def test_what_is_not_supported_is_refused(rest, calls):
    from tritonclient.utils import InferenceServerException

    for client in (rest, calls):
        with pytest.raises(InferenceServerException, match=r"404|UNIMPLEMENTED"):
            client.register_system_shared_memory("region", "/region", 24)
        with pytest.raises(InferenceServerException, match=r"404|UNIMPLEMENTED"):
            client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 24)
    for module, client in ((http, rest), (grpc, calls)):
        given = module.InferInput("x", [2, 3], "FP32")
        given.set_shared_memory("region", 24)
        with pytest.raises(InferenceServerException, match="shared memory"):
            client.infer("fp32", [given])


def test_asynchronous_and_streamed_calls(rest, calls):
    array = TYPES["FP32"][1]
    given = http.InferInput("x", array.shape, "FP32")
    given.set_data_from_numpy(array)
    same(rest.async_infer("fp32", [given]).get_result().as_numpy("y"), array)

    import queue

    answers: queue.Queue = queue.Queue()
    calls.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(3):
        given = grpc.InferInput("x", array.shape, "FP32")
        given.set_data_from_numpy(array + number)
        calls.async_stream_infer("fp32", [given], request_id=str(number))
    calls.async_stream_infer("nothing", [given])
    for number in range(3):
        result, error = answers.get(timeout=60)
        assert error is None
        assert result.get_response().id == str(number)
        same(result.as_numpy("y"), array + number)
    result, error = answers.get(timeout=60)
    assert "nothing" in str(error)
    calls.stop_stream()


@pytest.mark.parametrize(
    ("model", "name", "datatype", "shape", "says"),
    [
        ("nothing", "x", "FP32", [1, 3], "no model 'nothing'"),
        ("fp32", "z", "FP32", [1, 3], "no input 'z'"),
        ("fp32", "x", "FP64", [1, 3], "datatype 'FP64', expected FP32"),
        ("fp32", "x", "FP32", [1, 4], "shape [1, 4]"),
        ("fp32", "x", "FP32", [3], "shape [3]"),
    ],
)
def test_faults_of_requests_are_the_protocols_errors(
    rest, calls, model, name, datatype, shape, says
):
    from tritonclient.utils import InferenceServerException, triton_to_np_dtype

    for module, client in ((http, rest), (grpc, calls)):
        given = module.InferInput(name, shape, datatype)
        given.set_data_from_numpy(np.zeros(shape, triton_to_np_dtype(datatype)))
        with pytest.raises(InferenceServerException) as found:
            client.infer(model, [given])
        assert says in str(found.value)
        assert found.value.status() in ("400", "404", *(
            f"StatusCode.{code}" for code in ("INVALID_ARGUMENT", "NOT_FOUND")
        ))  # fmt: skip
