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


class Refused(Exception):
    """The request is wrong. The message names the field."""


def utf8(body):
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"body: is not UTF-8: {error.reason} at byte {error.start}") from None


def has_no_rows(data):
    if isinstance(data, dict):
        return any(has_no_rows(values) for values in data.values())
    return data.size == 0 if hasattr(data, "size") else isinstance(data, list) and not data


def predicted(function, data, *more, **named):
    """Calls a model. Few models take a table without rows, and then the request is wrong."""
    try:
        return function(data, *more, **named)
    except Exception as error:
        if has_no_rows(data):
            raise Refused(f"body: has no rows, and the model does not take that: {error}") from error
        raise


NUMBERS = {"<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i", "|b1": "?"}


def columns_of(header, buffers):
    """Returns the columns of a table by name: arrays of NumPy where it is installed, otherwise lists."""
    try:
        import numpy
    except ImportError:
        numpy = None
    columns = {}
    for column in header["columns"]:
        part = buffers[column["at"] : column["at"] + column["bytes"]]
        if column["type"] == "texts":
            columns[column["name"]] = json.loads(bytes(part))
        elif numpy is None:
            columns[column["name"]] = part.cast(NUMBERS[column["type"]]).tolist()
        else:
            columns[column["name"]] = numpy.frombuffer(part, dtype=column["type"])
    return columns


def arrays_of(header, buffers):
    """Returns the arrays of a request by name, or its only array if that has no name."""
    import numpy

    arrays = {}
    for tensor in header["tensors"]:
        part = buffers[tensor["at"] : tensor["at"] + tensor["bytes"]]
        arrays[tensor["name"]] = numpy.frombuffer(part, dtype=tensor["type"]).reshape(tensor["shape"])
    return arrays[None] if list(arrays) == [None] else arrays


def array_answer(output):
    """Returns the header and the buffers of an answer that is an array of numbers, or nothing for any other output."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(output, numpy.ndarray) or not output.ndim or output.dtype.kind not in "biuf":
        return None
    array = numpy.ascontiguousarray(output)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype("<f8")
    kind = array.dtype.newbyteorder("<").str
    return {"form": "array", "type": kind, "shape": list(array.shape)}, [array]


def divided(output, parts):
    """Returns the output of each request of a call, or nothing if it has not one row for each row of the input."""
    if len(parts) == 1:
        return [output]
    if len(output) != sum(parts):
        return None
    pieces, start = [], 0
    for rows in parts:
        piece = slice(start, start + rows)
        pieces.append(output.iloc[piece] if hasattr(output, "iloc") else output[piece])
        start += rows
    return pieces


def json_answer(output, parts, text):
    """Returns the header and the buffers of an answer in JSON. `text` encodes the output of one request."""
    pieces = divided(output, parts)
    if pieces is None:
        return {"form": "unaligned"}, []
    texts = [text(piece) for piece in pieces]
    return {"form": "json", "parts": [len(text) for text in texts]}, texts


class Pyfunc:
    """A model that mlflow.pyfunc loads."""

    def __init__(self, task):
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(task["path"])
        # Takes an array instead of a DataFrame, after `prove` has shown that the predictions are the same.
        self.raw = None

    def table(self, header, buffers):
        params = header.get("params")
        if self.raw and params is None:
            return self.raw(self.matrix(header, buffers))
        return self.predict(self.frame(columns_of(header, buffers)), params)

    def tensors(self, header, buffers):
        return self.predict(arrays_of(header, buffers), header.get("params"))

    def frame(self, columns):
        import pandas

        return pandas.DataFrame(
            {name: pandas.Series(values) if isinstance(values, list) else values for name, values in columns.items()}
        )

    def matrix(self, header, buffers):
        import numpy

        columns = header["columns"]
        kinds = {column["type"] for column in columns}
        if len(kinds) == 1 and sum(column["bytes"] for column in columns) == len(buffers):
            return numpy.frombuffer(buffers, dtype=kinds.pop()).reshape(len(columns), -1).T
        return numpy.column_stack(list(columns_of(header, buffers).values()))

    def prove(self, header, buffers):
        """Switches to arrays if they give exactly the predictions of a DataFrame, for the sample and for rows near it."""
        raw = self.predict_of_arrays()
        if raw is None:
            return "the library has no prediction for arrays"
        import warnings

        import numpy

        # scikit-learn says so for each array, and the front has checked the names.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        for change in (lambda values: values, lambda values: values + values.dtype.type(1)):
            columns = {name: change(values) for name, values in columns_of(header, buffers).items()}
            expected = self.predict(self.frame(columns), None)
            same = {column["type"] for column in header["columns"]}
            stacked = numpy.stack(list(columns.values())).T if len(same) == 1 else numpy.column_stack(list(columns.values()))
            found = raw(stacked)
            if not isinstance(expected, numpy.ndarray) or not isinstance(found, numpy.ndarray):
                return "the predictions are no arrays"
            if found.dtype != expected.dtype or not numpy.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
                return "the predictions differ"
        self.raw = raw
        return ""

    def predict_of_arrays(self):
        """Returns the prediction of the library itself, if it has one."""
        flavor = self.model.metadata.flavors["python_function"]
        own = self.model.get_raw_model() if hasattr(self.model, "get_raw_model") else None
        name = flavor.get("predict_fn") or "predict"
        if type(own).__module__.startswith("xgboost") and hasattr(own, "inplace_predict"):
            return lambda matrix: own.inplace_predict(matrix, validate_features=False)
        return getattr(own, name, None)

    def body(self, header, buffers):
        """Decodes a body as MLflow's scoring server does, and predicts."""
        try:
            data, params = self.decode(bytes(buffers), header["contentType"])
        except Refused:
            raise
        except Exception as error:
            raise Refused(getattr(error, "message", None) or f"{type(error).__name__}: {error}") from error
        return self.predict(data, params)

    def decode(self, body, kind):
        import io

        from mlflow.pyfunc import scoring_server

        schema = self.model.metadata.get_input_schema()
        if kind == "text/csv":
            return scoring_server.parse_csv_input(io.StringIO(utf8(body)), schema), None
        if kind == "application/vnd.apache.parquet":
            return scoring_server.parse_parquet_input(io.BytesIO(body)), None
        parsed = scoring_server._parse_json_data(utf8(body), self.model.metadata, schema)
        return parsed.data, parsed.params

    def predict(self, data, params):
        if params is None:
            return predicted(self.model.predict, data)
        return predicted(self.model.predict, data, params=params)

    def encode(self, output, parts):
        """Returns the header and the buffers of an answer. `parts` has the rows of each request, if there are several."""
        return array_answer(output) or json_answer(output, parts, self.text)

    def text(self, output):
        from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

        value = _get_jsonable_obj(output, pandas_orient="records")
        try:
            text = json.dumps(value, cls=NumpyEncoder, allow_nan=False)
        except ValueError:
            text = json.dumps(finite(json.loads(json.dumps(value, cls=NumpyEncoder))))
        return text.encode()


class Module:
    """A module with `init()` and `predict(matrix, columns)`. Modules of Legion's first version have `predict_on_matrix`."""

    def __init__(self, task):
        import importlib

        os.environ["MODEL_LOCATION"] = task["path"]
        sys.path.insert(0, task["path"])
        module = importlib.import_module(task["entrypoint"])
        self.function = getattr(module, "predict", None) or getattr(module, "predict_on_matrix", None)
        if self.function is None:
            raise AttributeError(f"the module {task['entrypoint']!r} has no function predict")
        if hasattr(module, "init"):
            module.init()

    def table(self, header, buffers):
        columns = columns_of(header, buffers)
        return self.predict(list(zip(*columns.values())), list(columns))

    def tensors(self, header, buffers):
        return self.function(arrays_of(header, buffers), None)

    def predict(self, rows, names):
        """Calls the module with an array of NumPy, of objects if not all values are numbers. Without NumPy: with lists."""
        rows = [list(row) if isinstance(row, (list, tuple)) else row for row in rows]
        try:
            import numpy
        except ImportError:
            return predicted(self.function, rows, names)
        try:
            matrix = numpy.array(rows)
            if matrix.dtype.kind not in "biuf":
                matrix = numpy.array(rows, dtype=object)
        except ValueError:
            raise Refused("the rows have different lengths") from None
        return predicted(self.function, matrix, names)

    def body(self, header, buffers):
        try:
            rows, names = rows_of(bytes(buffers), header["contentType"])
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused(f"body: {error}") from error
        return self.predict(rows, names)

    def encode(self, output, parts):
        names = None
        if isinstance(output, tuple) and len(output) == 2:
            output, names = output
        if names is None:
            return array_answer(output) or json_answer(output, parts, lambda piece: self.text(piece, None))
        return json_answer(output, parts, lambda piece: self.text(piece, list(names)))

    def text(self, output, names):
        rows = output.tolist() if hasattr(output, "tolist") else output
        if hasattr(output, "to_dict"):
            rows = output.to_dict("records")
        elif names is not None:
            rows = [dict(zip(names, row)) for row in rows]
        return json.dumps(finite(rows), default=plain, allow_nan=False).encode()


def plain(value):
    """Returns a value of Python for one of NumPy."""
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    raise TypeError(f"a prediction of type {type(value).__name__} has no form in JSON")


def rows_of(body, kind):
    """Decodes a body without MLflow: rows, and the names of their columns if there are any."""
    if kind == "text/csv":
        import csv
        import io

        names, *rows = list(csv.reader(io.StringIO(utf8(body)))) or [[]]
        return [[number(cell) for cell in row] for row in rows], names
    if kind != "application/json":
        raise Refused(f"content-type: {kind} is not supported by a module, only JSON and CSV")
    data = json.loads(body)
    forms = ("dataframe_split", "dataframe_records", "inputs", "instances")
    given = [form for form in forms if isinstance(data, dict) and form in data]
    if len(given) != 1:
        raise Refused(f"body: needs exactly one of {', '.join(forms)}")
    value = data[given[0]]
    if given[0] == "dataframe_split" and isinstance(value, dict):
        rows, names = value.get("data"), value.get("columns")
    elif isinstance(value, dict):
        names = list(value)
        rows = [list(row) for row in zip(*value.values())]
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        names = list(value[0])
        if any(row.keys() != value[0].keys() for row in value):
            raise Refused(f"{given[0]}: the records have different names")
        rows = [[row[name] for name in names] for row in value]
    else:
        rows, names = value, None
    if not isinstance(rows, list) or names is not None and not all(isinstance(row, list) for row in rows):
        raise Refused(f"{given[0]}: is no list of rows")
    if names is not None and any(len(row) != len(names) for row in rows):
        raise Refused(f"{given[0]}: a row has not {len(names)} values")
    return rows, names


def number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def fault(error):
    """Returns the header of an answer about an exception."""
    import traceback

    if isinstance(error, Refused):
        return {"form": "error", "type": "", "message": str(error)[:2000], "refused": True}
    traceback.print_exception(error, file=sys.stderr)
    refused = False
    if "mlflow" in sys.modules:
        from mlflow.exceptions import MlflowException

        refused = isinstance(error, MlflowException) and error.get_http_status_code() < 500
    text = str(getattr(error, "message", None) or error)
    return {"form": "error", "type": type(error).__name__, "message": text[:2000], "refused": refused}


def keep_unchanged(directory):
    """Lets Python write no compiled files into a model. Its descriptor lists every file, and the directory may be shared."""
    import importlib.machinery

    loader = importlib.machinery.SourceFileLoader
    write, below = loader.set_data, os.path.realpath(directory) + os.sep

    def set_data(self, path, data, **more):
        if not os.path.realpath(path).startswith(below):
            write(self, path, data, **more)

    loader.set_data = set_data


LOADERS = {"mlflow-pyfunc": Pyfunc, "module": Module}


def main():
    channel = Channel()
    task = json.loads(sys.argv[1])
    keep_unchanged(task["path"])
    try:
        model = LOADERS[task["loader"]](task)
    except BaseException as error:
        channel.send(fault(error))
        raise
    channel.send({"form": "ready"})
    while True:
        header, buffers = channel.receive()
        try:
            if header["form"] == "proof":
                answer = {"form": "proof", "why": model.prove(header, buffers)}, []
            else:
                # `table`, `tensors` or `body`.
                output = getattr(model, header["form"])(header, buffers)
                answer = model.encode(output, header["parts"])
        except Exception as error:
            answer = fault(error), []
        channel.send(*answer)


main()
