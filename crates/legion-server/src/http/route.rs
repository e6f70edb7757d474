//! Which answer a path gives.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Front, Timing,
    answer::{self, Answer, Fault, Protocol},
    body, inference, legion, openapi, page,
};
use crate::{
    input::{Input, mlflow},
    output::Output,
};

/// Media types that MLflow's scoring server takes.
const MEDIA_TYPES: [&str; 3] = ["application/json", "text/csv", "application/vnd.apache.parquet"];

/// The end of a path for predictions in the V1 protocol.
const PREDICT: &str = ":predict";

/// Answers a request. Returns the name of its protocol, too.
pub(super) async fn answer(front: &Front, request: Request<Incoming>) -> (&'static str, Answer) {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let protocol = match parts.first() {
        Some(&"invocations") => Protocol::Mlflow,
        Some(&"v2") => Protocol::Inference,
        Some(&"v1") => Protocol::V1,
        Some(&"api") => Protocol::Legion,
        _ => Protocol::Other,
    };
    let result = match (request.method(), parts.as_slice()) {
        (&Method::POST, ["invocations"]) => invocations(front, request).await,
        (&Method::POST, ["v1", "models", verb]) if takes_body(&parts) => {
            v1(front, verb.strip_suffix(PREDICT).unwrap_or(verb), request).await
        }
        (&Method::POST, ["v2", "models", name, "infer"]) => infer(front, name, None, request).await,
        (&Method::POST, ["v2", "models", name, "versions", version, "infer"]) => {
            infer(front, name, Some(version), request).await
        }
        (&Method::POST, ["api", "model", "invoke"]) => invoke(front, request).await,
        (&Method::GET | &Method::HEAD, ["api", "model", "info"]) => {
            let swagger2 = request.uri().query() == Some("format=swagger2");
            let document = if swagger2 { openapi::swagger2 } else { openapi::openapi };
            Ok(answer::json(StatusCode::OK, &document(&front.model)))
        }
        (&Method::GET | &Method::HEAD, _) if !takes_body(&parts) => page::answer(front, &parts, request.headers())
            .or_else(|| get(front, &parts))
            .ok_or_else(|| not_found(&path)),
        _ => return (protocol.name(), refuse(front, &request, &parts, protocol)),
    };
    let answer = result.unwrap_or_else(|fault| answer::fault(protocol, &fault));
    (protocol.name(), answer)
}

/// Refuses a method that the path does not have, or the path.
fn refuse(front: &Front, request: &Request<Incoming>, parts: &[&str], protocol: Protocol) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    let is_read = || {
        parts == ["api", "model", "info"]
            || page::answer(front, parts, request.headers()).is_some()
            || get(front, parts).is_some()
    };
    let allowed = if takes_body(parts) {
        "POST"
    } else if is_read() {
        "GET, HEAD"
    } else {
        return answer::fault(protocol, &not_found(path));
    };
    let message = format!("{method} {path}: there is no such method here, only {allowed}");
    let mut answer = answer::fault(protocol, &Fault::new(StatusCode::METHOD_NOT_ALLOWED, message));
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Whether a path is that of predictions.
fn takes_body(path: &[&str]) -> bool {
    match path {
        ["invocations"]
        | ["api", "model", "invoke"]
        | ["v2", "models", _, "infer"]
        | ["v2", "models", _, "versions", _, "infer"] => true,
        ["v1", "models", name] => name.ends_with(PREDICT),
        _ => false,
    }
}

/// Refuses a request for the name of another host.
pub(super) fn foreign(host: &str) -> (&'static str, Answer) {
    let message = format!(
        "host: {host:?} is no name of this machine, and the server listens for it alone: use 127.0.0.1, or another --bind"
    );
    let answer = answer::fault(Protocol::Other, &Fault::new(StatusCode::FORBIDDEN, message));
    (Protocol::Other.name(), answer)
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
            "name": "legion-server", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"],
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
        ["healthcheck"] => answer::json(ready, &json!({"status": is_ready})),
        ["openapi.json"] => ok(&openapi::openapi(model)),
        ["version"] => answer::with(StatusCode::OK, "text/plain", model.mlflow_version.clone()),
        ["metrics"] => answer::with(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            front.metrics.text(),
        ),
        _ => return None,
    })
}

/// Reads a body within the limits.
async fn content(front: &Front, request: Request<Incoming>) -> Result<(HeaderMap, Bytes), Fault> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, front.max_body).await?;
    Ok((head.headers, body))
}

/// Reads a body of JSON within the limits.
async fn json_content(front: &Front, request: Request<Incoming>) -> Result<(HeaderMap, Bytes), Fault> {
    let (headers, body) = content(front, request).await?;
    body::check_depth(&body)?;
    Ok((headers, body))
}

async fn invocations(front: &Front, request: Request<Incoming>) -> Result<Answer, Fault> {
    let (headers, body) = content(front, request).await?;
    let signature = front.model.signature.as_ref();
    let input = match media_type(&headers)? {
        "application/json" => {
            body::check_depth(&body)?;
            mlflow::decode(&body, signature)?
        }
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
        let is_utf8 = value.trim_matches('"').eq_ignore_ascii_case("utf-8");
        if !name.eq_ignore_ascii_case("charset") || !is_utf8 {
            return Err(refused(format!(
                "content-type: {parameter:?} is not supported, only charset=utf-8"
            )));
        }
    }
    let known = MEDIA_TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(media));
    known.ok_or_else(|| refused(format!("content-type: {text:?} is none of {}", MEDIA_TYPES.join(", "))))
}

async fn v1(front: &Front, name: &str, request: Request<Incoming>) -> Result<Answer, Fault> {
    check_name(front, name)?;
    let (_, body) = json_content(front, request).await?;
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
    let (headers, body) = content(front, request).await?;
    let (json, binary) = inference::parts(&headers, &body)?;
    body::check_depth(&json)?;
    let (wishes, input) = inference::decode(&json, binary, front.model.signature.as_ref())?;
    let (output, timing) = predict(front, input).await?;
    let mut answer = inference::encode(&front.model, wishes, output)?;
    answer.extensions_mut().insert(timing);
    Ok(answer)
}

async fn predict(front: &Front, input: Input) -> Result<(Output, Timing), Fault> {
    let prediction = front.pool.predict(input).await?;
    let timing = Timing {
        queued: prediction.queued,
        predicted: prediction.predicted,
    };
    Ok((prediction.output, timing))
}

/// Answers as Legion's first version did.
async fn invoke(front: &Front, request: Request<Incoming>) -> Result<Answer, Fault> {
    let (headers, body) = json_content(front, request).await?;
    let input = legion::decode(&body, front.model.signature.as_ref())?;
    let (output, timing) = predict(front, input).await?;
    let mut answer = legion::encode(&front.model, &headers, &output);
    answer.extensions_mut().insert(timing);
    Ok(answer)
}

/// Predicts, and answers as MLflow does.
async fn predictions(front: &Front, input: Input) -> Result<Answer, Fault> {
    let mut text = Vec::from(&b"{\"predictions\": "[..]);
    let (output, timing) = predict(front, input).await?;
    match output {
        Output::Array(array) => array.json(&mut text),
        Output::Json(json) => text.extend_from_slice(&json),
    }
    text.push(b'}');
    let mut answer = answer::with(StatusCode::OK, "application/json", text);
    answer.extensions_mut().insert(timing);
    Ok(answer)
}
