"""The process that holds the model. The front starts it and talks to it over the socket that is its standard input.

A frame: the length of a JSON header (4 bytes, little-endian), the length of the buffers (8 bytes), the header, the
buffers. The worker needs the standard library and what the model itself brings. It answers one frame for each frame.
"""

import json
import math
import os
import socket
import struct
import sys

HEAD = struct.Struct("<IQ")


class Channel:
    def __init__(self):
        self.socket = socket.socket(fileno=os.dup(0))
        # Code of the model may read standard input and print.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)

    def _read(self, size):
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = self.socket.recv_into(view)
            if not count:
                sys.exit(0)  # the front has gone
            view = view[count:]
        return buffer

    def receive(self):
        header, buffers = HEAD.unpack(self._read(HEAD.size))
        return json.loads(self._read(header)), memoryview(self._read(buffers))

    def send(self, header, buffers=()):
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
        parts = [memoryview(part).cast("B") for part in buffers]
        head = HEAD.pack(len(text), sum(part.nbytes for part in parts))
        self.socket.sendall(head + text)
        for part in parts:
            self.socket.sendall(part)


def finite(value):
    """Returns the value with null in the place of what JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


class Pyfunc:
    """A model that mlflow.pyfunc loads."""

    def __init__(self, path):
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(path)

    def table(self, header, buffers):
        import numpy
        import pandas

        columns = {}
        for column in header["columns"]:
            part = buffers[column["at"] : column["at"] + column["bytes"]]
            if column["type"] == "texts":
                columns[column["name"]] = pandas.Series(json.loads(bytes(part)))
            else:
                columns[column["name"]] = numpy.frombuffer(part, dtype=column["type"])
        return self.predict(pandas.DataFrame(columns), header.get("params"))

    def body(self, header, buffers):
        """Decodes a body as MLflow's scoring server does, and predicts."""
        from mlflow.pyfunc import scoring_server

        body, kind = bytes(buffers), header["contentType"]
        schema, params = self.model.metadata.get_input_schema(), None
        if kind == "text/csv":
            import io

            data = scoring_server.parse_csv_input(io.StringIO(body.decode()), schema)
        elif kind == "application/vnd.apache.parquet":
            import io

            data = scoring_server.parse_parquet_input(io.BytesIO(body))
        else:
            parsed = scoring_server._parse_json_data(body.decode(), self.model.metadata, schema)
            data, params = parsed.data, parsed.params
        return self.predict(data, params)

    def predict(self, data, params):
        if params is None:
            return self.model.predict(data)
        return self.model.predict(data, params=params)

    def encode(self, output, parts):
        """Returns the header and the buffers of an answer. `parts` has the rows of each request, if there are several."""
        import numpy

        if isinstance(output, numpy.ndarray) and output.ndim and output.dtype.kind in "biuf":
            array = numpy.ascontiguousarray(output)
            if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
                array = array.astype("<f8")
            kind = array.dtype.newbyteorder("<").str
            return {"form": "array", "type": kind, "shape": list(array.shape)}, [array]
        if len(parts) == 1:
            texts = [self.text(output)]
        else:
            if len(output) != sum(parts):
                return {"form": "unaligned"}, []
            texts, start = [], 0
            for rows in parts:
                piece = slice(start, start + rows)
                texts.append(self.text(output.iloc[piece] if hasattr(output, "iloc") else output[piece]))
                start += rows
        return {"form": "json", "parts": [len(text) for text in texts]}, texts

    def text(self, output):
        from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

        value = _get_jsonable_obj(output, pandas_orient="records")
        try:
            text = json.dumps(value, cls=NumpyEncoder, allow_nan=False)
        except ValueError:
            text = json.dumps(finite(json.loads(json.dumps(value, cls=NumpyEncoder))))
        return text.encode()


def fault(error):
    """Returns the header of an answer about an exception."""
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    try:
        from mlflow.exceptions import MlflowException

        refused = isinstance(error, MlflowException) and error.get_http_status_code() < 500
    except Exception:
        refused = False
    text = str(getattr(error, "message", None) or error)
    return {"form": "error", "type": type(error).__name__, "message": text[:2000], "refused": refused}


def main():
    channel = Channel()
    try:
        model = Pyfunc(sys.argv[1])
    except BaseException as error:
        channel.send(fault(error))
        raise
    channel.send({"form": "ready"})
    while True:
        header, buffers = channel.receive()
        try:
            output = model.table(header, buffers) if header["form"] == "table" else model.body(header, buffers)
            answer = model.encode(output, header["parts"])
        except Exception as error:
            answer = fault(error), []
        channel.send(*answer)


main()
