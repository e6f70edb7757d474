"""The requests of test_bad_requests.py: for each protocol, what is wrong and what the server answers.

The model has the columns `a` (double) and `b` (long). Its name is `wine`, its version `3`.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
MAX_BODY = 1_000_000
LENGTH = "Inference-Header-Content-Length"
# What MLflow itself decodes has its messages.
INVALID = "Invalid input."
SCHEMA = "MlflowException: Failed to enforce schema of data"
TYPE = (
    "Invalid input. Data is not compatible with model signature. Failed to convert column"
)
NO_ROWS = "body: has no rows"


@dataclass(frozen=True)
class Case:
    """A request."""

    section: str
    title: str
    status: int
    # What the message begins with. It names the field.
    message: str
    body: bytes = b""
    path: str = ""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A protocol: its path, a correct body, and the keys of its errors."""

    section: str
    path: str
    correct: bytes
    keys: set[str]
    media: str = JSON


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()


def split(*rows: list[Any], columns: list[str] = ["a", "b"], **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows)}, **more}


def tensor(name: str, data: Any, datatype: str = "FP64", shape: Any = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data}


A, B = tensor("a", [0.5]), tensor("b", [2], "INT64")


def infer(*inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **more}


def with_bytes(content: bytes, sizes: tuple[Any, Any] = (8, 8), shape: Any = [1]) -> tuple[bytes, dict[str, str]]:
    """Returns a body with binary tensors `a` and `b`, and its headers."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
        for name, datatype, size in (("a", "FP64", sizes[0]), ("b", "INT64", sizes[1]))
    ]
    head = encoded({"inputs": inputs})
    return head + content, {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


BYTES = struct.pack("<dq", 0.5, 2)

INVOCATIONS = Protocol("`/invocations`", "/invocations", encoded(split([0.5, 2])), {"error_code", "message"})
CSV = Protocol("`/invocations` with CSV", "/invocations", b"a,b\n0.5,2\n", {"error_code", "message"}, "text/csv")
V1 = Protocol("`/v1/models/NAME:predict`", "/v1/models/wine:predict", b'{"instances":[{"a":0.5,"b":2}]}', {"error"})
V2 = Protocol("`/v2/models/NAME/infer`", "/v2/models/wine/infer", encoded(infer(A, B)), {"error"})
LEGION = Protocol("`/api/model/invoke`", "/api/model/invoke", b'{"columns":["a","b"],"data":[[0.5,2]]}', {"message"})
PROTOCOLS = [INVOCATIONS, CSV, V1, V2, LEGION]


def packed(length: int) -> bytes:
    """Returns a bomb: spaces in gzip, a thousandth of their length."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*(packer.compress(b" " * 1_000_000) for _ in range(length // 1_000_000)), packer.flush()])


def common(of: Protocol) -> Iterator[Case]:
    """The cases of every protocol: what is wrong before the body is read as a request."""

    def case(title: str, status: int, message: str, body: Any = of.correct, **more: Any) -> Case:
        return Case(of.section, title, status, message, encoded(body), **more)

    yield case("correct", 200, "")
    if of.media != JSON:
        return
    yield case("gzip", 200, "", gzip.compress(of.correct), headers={"Content-Encoding": "gzip"})
    too_long = f"body: is longer than {MAX_BODY} bytes"
    yield case("a body of 50 MB", 413, too_long, b" " * 50_000_000)
    yield case("200 MB in gzip", 413, too_long, packed(200_000_000), headers={"Content-Encoding": "gzip"})
    unpacked = "body: cannot be decompressed"
    cut = gzip.compress(of.correct)[:-9]
    yield case("gzip that is cut", 400, unpacked, cut, headers={"Content-Encoding": "gzip"})
    yield case("gzip that is none", 400, unpacked, headers={"Content-Encoding": "gzip"})
    yield case("`Content-Encoding: br`", 415, "content-encoding: ", headers={"Content-Encoding": "br"})
    yield case("`GET`", 405, f"GET {of.path}: ", method="GET", body=b"")
    yield case("`PUT`", 405, f"PUT {of.path}: ", method="PUT")
    yield case("another path", 404, f"{of.path}/more: ", path=f"{of.path}/more")
    # The other protocols have only JSON, and some of their clients send no media type.
    status, message = (415, "content-type: ") if of == INVOCATIONS else (200, "")
    yield case("`Content-Type: text/plain`", status, message, headers={"Content-Type": "text/plain"})
    yield case("no body", 400, "body: is no", b"")
    yield case("JSON that is cut", 400, "body: is no", of.correct[:-3])
    yield case("text behind the JSON", 400, "body: is no", of.correct + b" x")
    yield case("bytes that are no UTF-8", 400, "body: is no", of.correct[:-1] + b',"\xff": 1}')
    yield case("lists in lists, 100000 deep", 400, "body: lists", b"[" * 100_000 + b"]" * 100_000)


def tables(of: Protocol) -> Iterator[Case]:
    """The cases of `/invocations` with JSON."""

    def case(title: str, status: int, message: str, body: Any) -> Case:
        return Case(of.section, title, status, message, encoded(body))

    forms = "The input must be a JSON dictionary with exactly one of the input fields "
    yield case("`{}`", 400, forms, {})
    yield case("a list", 400, f"{INVALID} {forms}", [1])
    yield case("two forms in one body", 400, forms, split([0.5, 2], inputs=[1]))
    yield case("unknown parameter", 200, "", split([0.5, 2], params={"unknown": 1}))
    yield case("missing column", 400, "dataframe_split.data: ", split([0.5], columns=["a"]))
    yield case("missing column in a record", 400, "dataframe_records[0]: ", {"dataframe_records": [{"a": 1}]})
    yield case("text in a double column", 400, "dataframe_split.data[1][0]: ", split([0.5, 2], ["x", 2]))
    yield case("number as text in a double column", 200, "", split(["0.5", 2]))
    yield case("list in a double column", 400, "dataframe_split.data[0][0]: ", split([[0.5], 2]))
    yield case("integer in a double column", 200, "", split([1, 2]))
    yield case("`NaN` in a double column", 200, "", '{"dataframe_records": [{"a": NaN, "b": 2}]}')
    yield case("`null` in a double column", 200, "", split([None, 2]))
    yield case("`null` in a long column", 400, "dataframe_split.data[0][1]: ", split([0.5, None]))
    yield case("fraction in a long column", 200, "", split([0.5, 2.5]))
    yield case("number beyond a long", 400, f"{TYPE} b", split([0.5, 2**64]))
    yield case("another column", 200, "", split([0.5, 2, "x"], columns=["a", "b", "c"]))
    yield case("columns in another order", 200, "", split([2, 0.5], columns=["b", "a"]))
    yield case("two columns of one name", 400, f"{SCHEMA} '     a    a", split([0.5, 1, 2], columns=["a", "a", "b"]))
    yield case("row that is too short", 400, f"{INVALID} Provided dataframe_split field", split([0.5]))
    yield case("row that is too long", 400, "dataframe_split.data[0]: ", split([0.5, 2, 3]))
    yield case("rows of different lengths", 400, f"{TYPE} b", split([0.5, 2], [0.5]))
    yield case("no rows", 400, NO_ROWS, split())
    yield case("no `columns`", 400, SCHEMA, {"dataframe_split": {"data": [[0.5, 2]]}})
    without = {"dataframe_split": {"columns": ["a", "b"]}}
    yield case("no `data`", 400, f"{INVALID} Dataframe split format must have 'data' field", without)
    yield case("records that are an object", 400, f"{INVALID} Dataframe records", {"dataframe_records": {"a": 0.5}})


def csvs(of: Protocol) -> Iterator[Case]:
    """The cases of `/invocations` with CSV."""

    def case(title: str, status: int, message: str, body: str) -> Case:
        return Case(of.section, title, status, message, body.encode())

    parsed = "Failed to parse input as a Pandas DataFrame."
    yield case("no body", 400, parsed, "")
    yield case("missing column", 400, SCHEMA, "a\n0.5\n")
    yield case("text in a double column", 400, parsed, "a,b\nx,2\n")
    yield case("`NaN` in a double column", 200, "", "a,b\nNaN,2\n")
    yield case("no value in a long column", 400, parsed, "a,b\n0.5,\n")
    yield case("another column", 200, "", "a,b,c\n0.5,2,x\n")
    yield case("columns in another order", 200, "", "b,a\n2,0.5\n")
    yield case("two columns of one name", 200, "", "a,a,b\n0.5,1,2\n")
    yield case("row that is too short", 400, parsed, "a,b\n0.5\n")
    # As in MLflow, pandas takes the first value for an index.
    yield case("rows with a value before those of the columns", 200, "", "a,b\n7,0.5,2\n")
    yield case("no rows", 400, NO_ROWS, "a,b\n")
    yield Case(of.section, "bytes that are no UTF-8", 400, "body: is not UTF-8", b"a,b\n\xff,2\n")


def instances(of: Protocol) -> Iterator[Case]:
    """The cases of the V1 protocol."""

    def case(title: str, status: int, message: str, body: Any, **more: Any) -> Case:
        return Case(of.section, title, status, message, encoded(body), **more)

    records = lambda *of: {"instances": list(of)}
    yield case("another model", 404, 'there is no model "beer" here', of.correct, path="/v1/models/beer:predict")
    yield case("another verb", 404, "/v1/models/wine:explain: ", of.correct, path="/v1/models/wine:explain")
    forms = "The input must be a JSON dictionary with exactly one of the input fields "
    yield case("`{}`", 400, forms, {})
    yield case("a list", 400, f"{INVALID} {forms}", [1])
    yield case("missing column", 400, f"{SCHEMA} '{{'a': array([0.5])}}'", records({"a": 0.5}))
    number = f"{INVALID} could not convert string to float: 'x'"
    yield case("text in a double column", 400, number, records({"a": 0.5, "b": 2}, {"a": "x", "b": 2}))
    yield case("integer in a double column", 200, "", records({"a": 1, "b": 2}))
    yield case("`NaN` in a double column", 200, "", '{"instances": [{"a": NaN, "b": 2}]}')
    yield case("`null` in a double column", 200, "", records({"a": None, "b": 2}))
    yield case("`null` in a long column", 400, f"{INVALID} int() argument", records({"a": 0.5, "b": None}))
    yield case("another column", 200, "", records({"a": 0.5, "b": 2, "c": "x"}))
    yield case("columns in another order", 200, "", records({"b": 2, "a": 0.5}))
    yield case("lists in the place of records", 400, f"{SCHEMA} '[[0.5 2. ]]'", records([0.5, 2]))
    yield case("no rows", 400, NO_ROWS, records())
    yield case("a number in the place of the rows", 400, f"{SCHEMA} '1.0'", {"instances": 1})


def tensors(of: Protocol) -> Iterator[Case]:
    """The cases of the Open Inference Protocol, in JSON."""

    def case(title: str, status: int, message: str, body: Any, **more: Any) -> Case:
        return Case(of.section, title, status, message, encoded(body), **more)

    yield case("another model", 404, 'there is no model "beer" here', of.correct, path="/v2/models/beer/infer")
    versions = "/v2/models/wine/versions"
    yield case("the version", 200, "", of.correct, path=f"{versions}/3/infer")
    yield case("another version", 404, 'there is no version "9" here', of.correct, path=f"{versions}/9/infer")
    yield case("`{}`", 400, "body: is no request: missing field `inputs`", {})
    yield case("a list", 400, "body: ", [1])
    yield case("no tensors", 400, "inputs: ", infer())
    yield case("missing column", 400, "inputs: ", infer(A))
    yield case("text in a double column", 400, "inputs[0].data[0]: ", infer(tensor("a", ["x"]), B))
    yield case("integer in a double column", 200, "", infer(tensor("a", [1]), B))
    text = '{"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [NaN]}]}'
    yield case("`NaN` in a double column", 400, "body: ", text)
    yield case("`null` in a double column", 200, "", infer(tensor("a", [None]), B))
    yield case("`null` in a long column", 400, "inputs[1].data[0]: ", infer(A, tensor("b", [None], "INT64")))
    yield case("another column", 200, "", infer(A, B, tensor("c", ["x"], "BYTES")))
    yield case("columns in another order", 200, "", infer(B, A))
    yield case("two columns of one name", 400, "inputs[1].name: ", infer(A, A, B))
    yield case("no rows", 400, NO_ROWS, infer(tensor("a", []), tensor("b", [], "INT64")))
    yield case("all columns in one tensor", 200, "", infer(tensor("x", [[0.5, 2]], shape=[1, 2])))
    yield case("tensors of different lengths", 400, "inputs[1].shape: ", infer(A, tensor("b", [2, 3], "INT64")))
    yield case("data that is longer than the shape", 400, "inputs[0].data: ", infer(tensor("a", [1, 2], shape=[1]), B))
    yield case("data that is shorter than the shape", 400, "inputs[0].data: ", infer(tensor("a", [1], shape=[2]), B))
    yield case("data that is no list", 400, "inputs[0].data: ", infer(tensor("a", 1.5, shape=[1]), B))
    yield case("no data", 400, "inputs[0].data: ", infer({"name": "a", "datatype": "FP64", "shape": [1]}, B))
    yield case("unknown data type", 400, "inputs[0].datatype: ", infer(tensor("a", [0.5], "F64"), B))
    yield case("no data type", 400, "inputs[0].datatype: ", infer({"name": "a", "shape": [1], "data": [1]}, B))
    yield case("negative length", 400, "inputs[0].shape[0]: ", infer(tensor("a", [0.5], shape=[-1]), B))
    yield case("shape of three dimensions", 400, "inputs[0].shape: ", infer(tensor("a", [0.5], shape=[1, 1, 1]), B))
    yield case("shape beyond 64 bits", 400, "inputs[0].shape: ", infer(tensor("a", [0.5], shape=[2**62, 4]), B))
    yield case("length beyond 64 bits", 400, "inputs[0].shape[0]: ", infer(tensor("a", [0.5], shape=[2**64]), B))
    yield case("unknown output", 400, "outputs[0].name: ", infer(A, B, outputs=[{"name": "x"}]))


def binary(of: Protocol) -> Iterator[Case]:
    """The cases of the Open Inference Protocol, with binary tensors."""

    def case(title: str, status: int, message: str, body: tuple[bytes, dict[str, str]], **more: str) -> Case:
        return Case(of.section, title, status, message, body[0], headers={**body[1], **more})

    size = "inputs[1].parameters.binary_data_size: "
    length = "inference-header-content-length: "
    yield case("binary tensors", 200, "", with_bytes(BYTES))
    yield case("binary tensor that is cut", 400, size, with_bytes(BYTES[:-1]))
    yield case("bytes behind the binary tensors", 400, "body: ", with_bytes(BYTES + b"x"))
    yield case("binary tensor with no whole number of values", 400, "inputs[0].data: ", with_bytes(BYTES, (7, 9)))
    yield case("binary tensors longer than the shape", 400, "inputs[0].data: ", with_bytes(BYTES * 2, (16, 16)))
    yield case("negative size", 400, "inputs[0].parameters.binary_data_size: ", with_bytes(BYTES, (-8, 8)))
    yield case("NaN in a binary tensor", 200, "", with_bytes(struct.pack("<dq", float("nan"), 2)))
    yield case("header beyond the body", 400, length, with_bytes(BYTES), **{LENGTH: "9999"})
    yield case("header that is no number", 400, length, with_bytes(BYTES), **{LENGTH: "x"})
    yield case("no header before binary tensors", 400, "body: ", (with_bytes(BYTES)[0], {}))


def first_version(of: Protocol) -> Iterator[Case]:
    """The cases of Legion's first version."""

    def case(title: str, status: int, message: str, body: Any) -> Case:
        return Case(of.section, title, status, message, encoded(body))

    rows = lambda *rows, columns=["a", "b"]: {"columns": columns, "data": list(rows)}
    yield case("`{}`", 400, "data: ", {})
    yield case("a list", 400, "body: ", [1])
    yield case("missing column", 400, "data: ", rows([0.5], columns=["a"]))
    yield case("text in a double column", 400, "data[0][0]: ", rows(["x", 2]))
    yield case("integer in a double column", 200, "", rows([1, 2]))
    yield case("`NaN` in a double column", 400, "body: ", '{"columns": ["a", "b"], "data": [[NaN, 2]]}')
    yield case("`null` in a double column", 200, "", rows([None, 2]))
    yield case("`null` in a long column", 400, "data[0][1]: ", rows([0.5, None]))
    yield case("another column", 200, "", rows([0.5, 2, "x"], columns=["a", "b", "c"]))
    yield case("columns in another order", 200, "", rows([2, 0.5], columns=["b", "a"]))
    yield case("two columns of one name", 400, f"{SCHEMA} '     a    a", rows([0.5, 1, 2], columns=["a", "a", "b"]))
    yield case("rows without `columns`", 200, "", {"data": [[0.5, 2]]})
    yield case("row that is too short", 400, INVALID, rows([0.5]))
    yield case("row that is too long", 400, "data[0]: ", rows([0.5, 2, 3]))
    yield case("no rows", 400, NO_ROWS, rows())
    yield case("`columns` that is no list", 400, "columns: ", {"columns": 1, "data": []})


OWN = {
    INVOCATIONS.section: [tables],
    CSV.section: [csvs],
    V1.section: [instances],
    V2.section: [tensors, binary],
    LEGION.section: [first_version],
}


def cases(of: Protocol) -> list[Case]:
    return [*common(of), *(case for own in OWN[of.section] for case in own(of))]
