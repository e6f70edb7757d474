//! The description of the server's paths in OpenAPI 3.0, and in Swagger 2.0 for clients of Legion's first version.
//!
//! The types of a request come from the signature of the model.

use serde_json::{Map, Value, json};

use crate::model::Model;

/// Returns the document in OpenAPI 3.0.3.
pub(super) fn openapi(model: &Model) -> Value {
    let json_of = |schema: Value| json!({"application/json": {"schema": schema}});
    let post = |summary: &str, request: Value, response: Value, failure: &str| {
        let failure = json_of(json!({"$ref": format!("#/components/schemas/{failure}")}));
        let failed = |what: &str| json!({"description": what, "content": failure});
        json!({"post": {
            "summary": summary,
            "requestBody": {"required": true, "content": request},
            "responses": {
                "200": {"description": "The prediction", "content": json_of(response)},
                "400": failed("The request does not fit the model"),
                "413": failed("The body is too long"),
                "503": failed("Too many requests wait, or the model is not loaded"),
                "504": failed("The prediction took too long"),
            },
        }})
    };
    let get = |summary: &str| json!({"get": {"summary": summary, "responses": {"200": {"description": summary}}}});
    let mut invocations = json_of(json!({"$ref": "#/components/schemas/Invocation"}));
    invocations["text/csv"] = json!({"schema": {"type": "string"}});
    let sample: Value = serde_json::from_str(model.sample.request.get()).unwrap_or_default();
    invocations["application/json"]["example"] = sample;
    let predictions = json!({"type": "object", "properties": {"predictions": prediction(model)}});
    let infer = |what: &str| json_of(json!({"$ref": format!("#/components/schemas/{what}")}));
    let name = &model.name;
    json!({
        "openapi": "3.0.3",
        "info": {"title": name, "version": version(model)},
        "paths": {
            "/invocations": post("Predicts, in the form of MLflow", invocations, predictions, "MlflowError"),
            format!("/v2/models/{name}/infer"): post(
                "Predicts, in the form of the Open Inference Protocol v2",
                infer("InferRequest"),
                json!({"$ref": "#/components/schemas/InferResponse"}),
                "Error",
            ),
            format!("/v1/models/{name}:predict"): post(
                "Predicts, in the form of TensorFlow Serving",
                json_of(json!({"type": "object", "properties": {"instances": {"type": "array", "items": row(model)}}})),
                json!({"type": "object", "properties": {"predictions": prediction(model)}}),
                "Error",
            ),
            "/api/model/invoke": post(
                "Predicts, in the form of Legion's first version",
                json_of(json!({"$ref": "#/components/schemas/Invoke"})),
                json!({"$ref": "#/components/schemas/Invoked"}),
                "Message",
            ),
            format!("/v2/models/{name}"): get("Description of the model"),
            "/v2/health/live": get("Whether the server runs"),
            "/v2/health/ready": get("Whether the model is loaded"),
            "/metrics": get("Metrics for Prometheus"),
        },
        "components": {"schemas": schemas(model)},
    })
}

/// Returns the document in Swagger 2.0, with the paths of the first version alone.
pub(super) fn swagger2(model: &Model) -> Value {
    let ok = |what: &str, schema: Value| json!({"200": {"description": what, "schema": schema}});
    json!({
        "swagger": "2.0",
        "info": {"title": model.name, "version": version(model)},
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": {
            "/api/model/info": {"get": {
                "summary": "This description",
                "responses": ok("The description", json!({"type": "object"})),
            }},
            "/api/model/invoke": {"post": {
                "summary": "Predicts",
                "parameters": [
                    {"in": "body", "name": "input", "required": true, "schema": {"$ref": "#/definitions/Invoke"}},
                ],
                "responses": ok("The prediction", json!({"$ref": "#/definitions/Invoked"})),
            }},
        },
        "definitions": {"Invoke": invoke(), "Invoked": invoked()},
    })
}

/// OpenAPI needs a version, also of a model that has none.
fn version(model: &Model) -> &str {
    if model.version.is_empty() { "0" } else { &model.version }
}

fn invoke() -> Value {
    let rows = json!({"type": "array", "items": {"type": "array", "items": {}}});
    json!({
        "type": "object",
        "required": ["data"],
        "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": rows},
    })
}

fn invoked() -> Value {
    let rows = json!({"type": "array", "items": {"type": "array", "items": {}}});
    json!({
        "type": "object",
        "properties": {"prediction": rows, "columns": {"type": "array", "items": {"type": "string"}}},
    })
}

fn schemas(model: &Model) -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let error = |fields: &[&str]| {
        let properties: Map<String, Value> = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({"type": "string"})))
            .collect();
        json!({"type": "object", "properties": properties})
    };
    let tensor = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": "object"},
        },
    });
    let tensors = json!({"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}});
    let row = row(model);
    let split = json!({
        "type": "object",
        "required": ["data"],
        "properties": {"columns": texts, "data": {"type": "array", "items": {"type": "array", "items": {}}}},
    });
    let mut invocation = Map::from_iter([
        ("dataframe_split".to_owned(), split),
        ("dataframe_records".to_owned(), json!({"type": "array", "items": row})),
        ("instances".to_owned(), json!({"type": "array", "items": {}})),
        ("inputs".to_owned(), json!({})),
    ]);
    if let Some(params) = params(model) {
        invocation.insert("params".to_owned(), params);
    }
    json!({
        "Invocation": {
            "type": "object",
            "description": "Exactly one of dataframe_split, dataframe_records, instances and inputs",
            "properties": invocation,
        },
        "Tensor": tensor,
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {"id": {"type": "string"}, "inputs": tensors, "outputs": {"type": "array", "items": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}},
            }}},
        },
        "InferResponse": {
            "type": "object",
            "properties": {
                "model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"},
                "outputs": tensors,
            },
        },
        "Invoke": invoke(),
        "Invoked": invoked(),
        "Error": error(&["error"]),
        "MlflowError": error(&["error_code", "message"]),
        "Message": error(&["message"]),
    })
}

/// Returns the schema of one row of the input.
fn row(model: &Model) -> Value {
    match model.schema.get("inputs") {
        Some(Value::Array(specs)) => object(specs),
        _ => json!({}),
    }
}

/// Returns the schema of a prediction for several rows.
fn prediction(model: &Model) -> Value {
    match model.schema.get("outputs") {
        Some(Value::Array(specs)) if specs.iter().all(|spec| spec.get("name").is_some()) => {
            json!({"type": "array", "items": object(specs)})
        }
        _ => json!({"type": "array", "items": {}}),
    }
}

fn params(model: &Model) -> Option<Value> {
    let specs = model.schema.get("params")?.as_array()?;
    let properties: Map<String, Value> = specs
        .iter()
        .filter_map(|spec| {
            let mut schema = value_schema(spec);
            // A list of values has a shape.
            if spec.get("shape").is_some_and(|shape| !shape.is_null()) {
                schema = json!({"type": "array", "items": schema});
            }
            schema["default"] = spec.get("default").cloned().unwrap_or_default();
            Some((spec.get("name")?.as_str()?.to_owned(), schema))
        })
        .collect();
    Some(json!({"type": "object", "properties": properties}))
}

/// Returns the schema of an object with these columns.
fn object(specs: &[Value]) -> Value {
    let name = |spec: &Value| spec.get("name").and_then(Value::as_str).map(str::to_owned);
    if specs
        .iter()
        .any(|spec| name(spec).is_none() || spec["type"] == "tensor")
    {
        return json!({});
    }
    let is_required = |spec: &&Value| spec.get("required").and_then(Value::as_bool).unwrap_or(true);
    let required: Vec<String> = specs.iter().filter(is_required).filter_map(name).collect();
    let properties: Map<String, Value> = specs
        .iter()
        .filter_map(|spec| Some((name(spec)?, value_schema(spec))))
        .collect();
    let mut schema = json!({"type": "object", "properties": properties});
    // An empty list is not allowed there.
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Returns the schema of a value of MLflow's type.
fn value_schema(spec: &Value) -> Value {
    match spec.get("type").and_then(Value::as_str).unwrap_or_default() {
        "boolean" => json!({"type": "boolean"}),
        "integer" => json!({"type": "integer", "format": "int32"}),
        "long" => json!({"type": "integer", "format": "int64"}),
        "float" => json!({"type": "number", "format": "float", "nullable": true}),
        "double" => json!({"type": "number", "format": "double", "nullable": true}),
        "string" => json!({"type": "string", "nullable": true}),
        "binary" => json!({"type": "string", "format": "byte"}),
        "datetime" => json!({"type": "string", "format": "date-time"}),
        "array" => json!({"type": "array", "items": spec.get("items").map(value_schema).unwrap_or_default()}),
        "map" => json!({
            "type": "object",
            "additionalProperties": spec.get("values").map(value_schema).unwrap_or_default(),
        }),
        "object" => {
            let fields = spec.get("properties").and_then(Value::as_object).into_iter().flatten();
            let fields: Map<String, Value> = fields.map(|(name, of)| (name.clone(), value_schema(of))).collect();
            json!({"type": "object", "properties": fields})
        }
        _ => json!({}),
    }
}
