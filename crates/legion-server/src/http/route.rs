//! Which answer a path gives.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Front,
    answer::{self, Answer, Fault, Protocol},
    body, inference, page,
};
use crate::{
    input::{Input, mlflow},
    output::Output,
};

/// Media types that MLflow's scoring server takes.
const MEDIA_TYPES: [&str; 3] = ["application/json", "text/csv", "application/vnd.apache.parquet"];

/// Answers a request. Returns the name of its protocol, too.
pub(super) async fn answer(front: &Front, request: Request<Incoming>) -> (&'static str, Answer) {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let protocol = match parts.first() {
        Some(&"invocations") => Protocol::Mlflow,
        Some(&"v2") => Protocol::Inference,
        Some(&"v1") => Protocol::V1,
        _ => Protocol::Other,
    };
    let result = match (request.method(), parts.as_slice()) {
        (&Method::POST, ["invocations"]) => invocations(front, request).await,
        (&Method::POST, ["v1", "models", name]) => v1(front, name.strip_suffix(":predict"), request).await,
        (&Method::POST, ["v2", "models", rest @ ..]) => match rest {
            [name, "infer"] => infer(front, name, None, request).await,
            [name, "versions", version, "infer"] => infer(front, name, Some(version), request).await,
            _ => Err(not_found(&path)),
        },
        (&Method::GET | &Method::HEAD, parts) => page::answer(front, parts, request.headers())
            .or_else(|| get(front, parts))
            .ok_or_else(|| not_found(&path)),
        (method, _) => Err(Fault::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} {path}: there is no such method here"),
        )),
    };
    let answer = result.unwrap_or_else(|fault| answer::fault(protocol, &fault));
    (protocol.name(), answer)
}

fn not_found(path: &str) -> Fault {
    Fault::new(StatusCode::NOT_FOUND, format!("{path}: there is no such path"))
}

/// Answers what needs no prediction.
fn get(front: &Front, path: &[&str]) -> Option<Answer> {
    let is_ready = front.pool.is_ready();
    let ready = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let ok = |value: &Value| answer::json(StatusCode::OK, value);
    let model = &front.model;
    Some(match path {
        // The clients of KServe read the body of an answer, too.
        ["v2", "health", "live"] => ok(&json!({"live": true})),
        ["v2", "health", "ready"] => answer::json(ready, &json!({"ready": is_ready})),
        ["v2"] => ok(&json!({
            "name": "legion-server", "version": env!("CARGO_PKG_VERSION"), "extensions": [],
        })),
        ["v2", "models", name, rest @ ..] if *name == model.name => match rest {
            ["versions", version] if *version == model.version => ok(&inference::metadata(model)),
            ["versions", version, "ready"] if *version == model.version => {
                answer::json(ready, &json!({"name": name, "ready": is_ready}))
            }
            ["ready"] => answer::json(ready, &json!({"name": name, "ready": is_ready})),
            [] => ok(&inference::metadata(model)),
            _ => return None,
        },
        ["v1", "models", name] if *name == model.name => answer::json(ready, &json!({"name": name, "ready": is_ready})),
        ["ping" | "health"] | ["readyz"] => answer::with(ready, "text/plain", "\n"),
        ["healthz"] => answer::with(StatusCode::OK, "text/plain", "ok\n"),
        ["version"] => answer::with(StatusCode::OK, "text/plain", model.mlflow_version.clone()),
        ["metrics"] => answer::with(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            front.metrics.text(),
        ),
        _ => return None,
    })
}

/// Reads a body, or refuses it by its length before any of it is read.
async fn content(front: &Front, request: Request<Incoming>) -> Result<(HeaderMap, Bytes), Fault> {
    let (head, body) = request.into_parts();
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING) {
        let message = format!("content-encoding: {encoding:?} is not supported");
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = body::read(body, front.max_body).await?;
    Ok((head.headers, body))
}

async fn invocations(front: &Front, request: Request<Incoming>) -> Result<Answer, Fault> {
    let (headers, body) = content(front, request).await?;
    let signature = front.model.signature.as_ref();
    let input = match media_type(&headers)? {
        "application/json" => mlflow::decode(&body, signature)?,
        other => Input::Mlflow {
            body,
            content_type: other.to_owned(),
        },
    };
    predictions(front, input).await
}

/// Returns the media type of a body. Without one, it is JSON.
fn media_type(headers: &HeaderMap) -> Result<&'static str, Fault> {
    let refused = |message: String| Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(MEDIA_TYPES[0]);
    };
    let text = value
        .to_str()
        .map_err(|_| refused("content-type: is not text".to_owned()))?;
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name != "charset" || !value.eq_ignore_ascii_case("utf-8") {
            return Err(refused(format!(
                "content-type: {parameter:?} is not supported, only charset=utf-8"
            )));
        }
    }
    let known = MEDIA_TYPES.into_iter().find(|known| *known == media);
    known.ok_or_else(|| refused(format!("content-type: {text:?} is none of {}", MEDIA_TYPES.join(", "))))
}

async fn v1(front: &Front, name: Option<&str>, request: Request<Incoming>) -> Result<Answer, Fault> {
    let name = name.ok_or_else(|| not_found(request.uri().path()))?;
    check_name(front, name)?;
    let (_, body) = content(front, request).await?;
    let input = mlflow::decode(&body, front.model.signature.as_ref())?;
    predictions(front, input).await
}

fn check_name(front: &Front, name: &str) -> Result<(), Fault> {
    if name == front.model.name {
        return Ok(());
    }
    let message = format!("there is no model {name:?} here, only {:?}", front.model.name);
    Err(Fault::new(StatusCode::NOT_FOUND, message))
}

async fn infer(front: &Front, name: &str, version: Option<&str>, request: Request<Incoming>) -> Result<Answer, Fault> {
    check_name(front, name)?;
    if let Some(version) = version.filter(|version| *version != front.model.version) {
        let message = format!("there is no version {version:?} here, only {:?}", front.model.version);
        return Err(Fault::new(StatusCode::NOT_FOUND, message));
    }
    let (_, body) = content(front, request).await?;
    let (id, input) = inference::decode(&body, front.model.signature.as_ref())?;
    let output = front.pool.predict(input).await?;
    let value = inference::encode(&front.model, id, output);
    Ok(answer::json(StatusCode::OK, &value))
}

/// Predicts, and answers as MLflow does.
async fn predictions(front: &Front, input: Input) -> Result<Answer, Fault> {
    let mut text = Vec::from(&b"{\"predictions\": "[..]);
    match front.pool.predict(input).await? {
        Output::Array(array) => array.json(&mut text),
        Output::Json(json) => text.extend_from_slice(&json),
    }
    text.push(b'}');
    Ok(answer::with(StatusCode::OK, "application/json", text))
}
