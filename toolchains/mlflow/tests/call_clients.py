"""Calls a model server with a client as its users do. Standard input has the server and rows.

    call_clients.py mlflow|kserve|triton < {"url", "model", "kind": "table" or "tensor", "rows": [[a, b], ...]}

Standard output has a JSON object: for each way to call, the predictions or another answer. It runs with the interpreter
of the client's own environment, so it imports nothing of this directory.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd


def mlflow(url: str, _: str, kind: str, rows: np.ndarray) -> dict[str, Any]:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, port = urlsplit(url).netloc.split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=60)
    # The client documents dictionaries of arrays, too, but both versions of MLflow fail to encode them.
    answer = client.invoke(rows if kind == "tensor" else pd.DataFrame(rows, columns=["a", "b"]))
    return {
        "version": client.get_version(),
        "array": answer.get_predictions(predictions_format="ndarray").ravel().tolist(),
        "frame": answer.get_predictions().to_numpy().ravel().tolist(),
    }


def kserve(url: str, model: str, kind: str, rows: np.ndarray) -> dict[str, Any]:
    return asyncio.run(kserve_calls(url, model, kind, rows))


async def kserve_calls(url: str, model: str, kind: str, rows: np.ndarray) -> dict[str, Any]:
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
    from kserve.protocol.infer_type import RequestedOutput

    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        found["v1 live"] = await client.is_server_live(url)
        found["v1 model ready"] = await client.is_model_ready(url, model)
        instances = rows.tolist() if kind == "tensor" else [{"a": a, "b": b} for a, b in rows.tolist()]
        found["v1"] = (await client.infer(url, {"instances": instances}, model_name=model))["predictions"]
    tensors = {"x": rows} if kind == "tensor" else {"a": rows[:, 0], "b": rows[:, 1]}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["v2 live"] = await client.is_server_live(url)
        found["v2 ready"] = await client.is_server_ready(url)
        found["v2 model ready"] = await client.is_model_ready(url, model)
        for binary_input in (False, True):
            for wanted in ("nothing", "binary_data_output", "output in binary", "output in JSON"):
                inputs = []
                for name, values in tensors.items():
                    tensor = InferInput(name, list(values.shape), "FP64")
                    tensor.set_data_from_numpy(values, binary_data=binary_input)
                    inputs.append(tensor)
                parameters = {"binary_data_output": True} if wanted == "binary_data_output" else None
                outputs = None
                if wanted.startswith("output"):
                    outputs = [RequestedOutput("predict", {"binary_data": wanted == "output in binary"})]
                request = InferRequest(model, inputs, "7", parameters=parameters, request_outputs=outputs)
                answer = await client.infer(url, request, model_name=model)
                assert answer.id == "7" and answer.model_name == model, answer
                kind_of = "binary" if binary_input else "JSON"
                found[f"v2 {kind_of}, {wanted}"] = answer.outputs[0].as_numpy().ravel().tolist()
    return found


def triton(url: str, model: str, kind: str, rows: np.ndarray) -> dict[str, Any]:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    found: dict[str, Any] = {}
    tensors = {"x": rows} if kind == "tensor" else {"a": rows[:, [0]], "b": rows[:, [1]]}
    with InferenceServerClient(urlsplit(url).netloc, network_timeout=60) as client:
        found["live"] = client.is_server_live()
        found["ready"] = client.is_server_ready()
        found["model ready"] = client.is_model_ready(model)
        found["other model ready"] = client.is_model_ready("other")
        found["extensions"] = client.get_server_metadata()["extensions"]
        found["metadata"] = client.get_model_metadata(model)
        for is_binary in (False, True):
            for wanted in (None, False, True):
                for compressed in (None, "gzip", "deflate"):
                    inputs = []
                    for name, values in tensors.items():
                        tensor = InferInput(name, list(values.shape), "FP64")
                        tensor.set_data_from_numpy(values, binary_data=is_binary)
                        inputs.append(tensor)
                    outputs = None if wanted is None else [InferRequestedOutput("predict", binary_data=wanted)]
                    # The server may leave the answer as it is.
                    answer = client.infer(
                        model,
                        inputs,
                        request_id="7",
                        outputs=outputs,
                        request_compression_algorithm=compressed,
                        response_compression_algorithm=compressed,
                    )
                    response = answer.get_response()
                    assert response["id"] == "7" and response["model_name"] == model, response
                    # Without names of outputs, the client asks for all of them in binary.
                    in_binary = "binary_data_size" in response["outputs"][0].get("parameters", {})
                    assert in_binary == (wanted is not False), response
                    call = f"{'binary' if is_binary else 'JSON'}, {wanted}, {compressed}"
                    found[call] = answer.as_numpy("predict").ravel().tolist()
        try:
            client.infer(model, inputs, outputs=[InferRequestedOutput("other")])
        except InferenceServerException as error:
            found["error"] = [error.status(), error.message()]
    return found


if __name__ == "__main__":
    given = json.load(sys.stdin)
    call = {"mlflow": mlflow, "kserve": kserve, "triton": triton}[sys.argv[1]]
    json.dump(call(given["url"], given["model"], given["kind"], np.array(given["rows"])), sys.stdout)
