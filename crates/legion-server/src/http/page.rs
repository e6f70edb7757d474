//! The page at `/`: a form for the requests of this model.
//!
//! The page is static. What it shows about the model is `/page.json`. Its paths are relative, so it also works behind a
//! gateway that removes a prefix from paths.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Front,
    answer::{self, Answer},
};
use crate::{model::Model, sample::Sample};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The document.
const INDEX: &str = include_str!("page/index.html");
/// Path, media type and content of the other files.
const ASSETS: [(&str, &str, &str); 9] = [
    ("page.css", CSS, include_str!("page/page.css")),
    ("page.svg", "image/svg+xml", include_str!("page/page.svg")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("page/answer.js", SCRIPT, include_str!("page/answer.js")),
    ("page/code.js", SCRIPT, include_str!("page/code.js")),
    ("page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("page/form.js", SCRIPT, include_str!("page/form.js")),
    ("page/json.js", SCRIPT, include_str!("page/json.js")),
    ("page/schema.js", SCRIPT, include_str!("page/schema.js")),
];

/// Headers of everything here. The names and predictions of a model are not trusted. Without inline scripts and styles,
/// and without other hosts, they cannot do anything, even if a script forgot to treat them as text.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another release of the server has other files under the same names.
    (header::CACHE_CONTROL, "no-cache"),
];

/// The content of `/page.json`.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    version: &'a str,
    loader: &'static str,
    mlflow_version: &'a str,
    server_version: &'static str,
    ready: bool,
    signature: Option<Notation<'a>>,
    sample: &'a Sample,
}

/// A signature in MLflow's notation.
#[derive(Serialize)]
struct Notation<'a> {
    inputs: Option<&'a Value>,
    outputs: Option<&'a Value>,
    params: Option<&'a Value>,
}

impl<'a> Description<'a> {
    fn of(model: &'a Model, ready: bool) -> Self {
        let part = |name: &str| model.schema.get(name);
        Self {
            name: &model.name,
            version: &model.version,
            loader: model.loader.as_str(),
            mlflow_version: &model.mlflow_version,
            server_version: env!("CARGO_PKG_VERSION"),
            ready,
            signature: (!model.schema.is_empty()).then(|| Notation {
                inputs: part("inputs"),
                outputs: part("outputs"),
                params: part("params"),
            }),
            sample: &model.sample,
        }
    }
}

/// Answers a path of the page, and `/` for every client.
pub(super) fn answer(front: &Front, path: &[&str], headers: &HeaderMap) -> Option<Answer> {
    if path == ["page.json"] {
        let description = Description::of(&front.model, front.pool.is_ready());
        // Text, numbers and values of JSON can always be written.
        let content = serde_json::to_vec(&description).unwrap_or_default();
        return Some(protected(answer::with(StatusCode::OK, "application/json", content)));
    }
    file(path, headers)
}

/// Returns a file of the page.
fn file(path: &[&str], headers: &HeaderMap) -> Option<Answer> {
    let answer = if path.is_empty() {
        let mut answer = if takes_html(headers) {
            answer::with(StatusCode::OK, HTML, INDEX)
        } else {
            // KServe's client expects this.
            answer::json(StatusCode::OK, &json!({"status": "alive"}))
        };
        let value = HeaderValue::from_static("accept");
        answer.headers_mut().insert(header::VARY, value);
        answer
    } else {
        let path = path.join("/");
        let (_, kind, content) = ASSETS.into_iter().find(|(name, ..)| *name == path)?;
        answer::with(StatusCode::OK, kind, content)
    };
    Some(protected(answer))
}

fn takes_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

fn protected(mut answer: Answer) -> Answer {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MLMODEL: &str = r#"
flavors: {python_function: {loader_module: mlflow.sklearn}}
mlflow_version: 3.17.2
signature:
  inputs: '[{"type": "double", "name": "a", "required": true},
    {"type": "array", "items": {"type": "long"}, "name": "b"}]'
  outputs: null
  params: '[{"name": "times", "type": "long", "default": 1, "shape": null}]'
"#;

    /// Returns the content of `/page.json` for a GPPI directory.
    fn described() -> Value {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let descriptor =
            "{format: gppi/v1, identity: {name: wine, version: '3'}, loader: {type: mlflow-pyfunc, path: model}}";
        write("legion.model.yaml", descriptor);
        write("model/MLmodel", MLMODEL);
        serde_json::to_value(Description::of(&Model::read(root.path()).unwrap(), true)).unwrap()
    }

    #[test]
    fn the_description_has_the_whole_signature() {
        assert_eq!(
            described(),
            json!({
                "name": "wine", "version": "3", "loader": "mlflow-pyfunc", "mlflow_version": "3.17.2",
                "server_version": env!("CARGO_PKG_VERSION"), "ready": true,
                "signature": {
                    "inputs": [
                        {"type": "double", "name": "a", "required": true},
                        {"type": "array", "items": {"type": "long"}, "name": "b"},
                    ],
                    "outputs": null,
                    "params": [{"name": "times", "type": "long", "default": 1, "shape": null}],
                },
                "sample": {
                    "file": null,
                    "request": {"dataframe_split": {"columns": ["a", "b"], "data": [[0.0, [0]]]}},
                },
            })
        );
    }

    #[test]
    fn a_browser_gets_the_page_and_another_client_json() {
        let get = |path: &[&str], accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            file(path, &headers)
        };
        let kind = |answer: &Answer| answer.headers()[header::CONTENT_TYPE].clone();
        let browser = get(&[], Some("text/html,application/xhtml+xml,*/*;q=0.8")).unwrap();
        assert_eq!(kind(&browser), HTML);
        assert_eq!(browser.headers()[header::VARY], "accept");
        for accept in [None, Some("*/*"), Some("application/json")] {
            assert_eq!(kind(&get(&[], accept).unwrap()), "application/json");
        }
        assert_eq!(kind(&get(&["page.css"], None).unwrap()), CSS);
        assert_eq!(kind(&get(&["page", "form.js"], None).unwrap()), SCRIPT);
        assert!(get(&["page"], None).is_none() && get(&["page", "..", "page.rs"], None).is_none());
    }

    #[test]
    fn no_file_of_the_page_may_load_from_elsewhere() {
        for (path, ..) in ASSETS {
            let path: Vec<&str> = path.split('/').collect();
            let answer = file(&path, &HeaderMap::new()).unwrap();
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(answer.headers()[header::REFERRER_POLICY], "no-referrer");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
        }
        // A path that begins with a slash would miss the prefix of a gateway.
        for wrong in [" style=", "<style", " onclick=", "src=\"/", "href=\"/"] {
            assert!(!INDEX.contains(wrong), "{wrong}");
        }
    }
}
