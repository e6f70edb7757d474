//! `legionctl get`: shows objects, in the columns that the API defines.

use std::io::Write;

use http::{Request, header::ACCEPT};
use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use legion_api::ModelTraining;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    args::{Format, Get},
    client::Session,
    columns,
    exit::{CliError, Code, Result},
    kinds, output, report, stored,
};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The part of a `meta.k8s.io/v1` Table that is printed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    cells: Vec<Value>,
    #[serde(default)]
    object: Value,
}

pub(crate) async fn run(session: &Session, get: &Get, out: &mut dyn Write) -> Result<Code> {
    let kinds = match &get.kind {
        Some(kind) => vec![kinds::find(kind)?],
        None => kinds::all(),
    };
    match get.output {
        Format::Table => tables(session, get, &kinds, out).await,
        Format::Report => one_report(session, get, &kinds, out).await,
        Format::Json | Format::Yaml => objects(session, get, &kinds, out).await,
    }
}

async fn one_report(session: &Session, get: &Get, kinds: &[ApiResource], out: &mut dyn Write) -> Result<Code> {
    let (Some(name), [kind]) = (&get.name, kinds) else {
        return Err(CliError::new(Code::Invalid, "-o report shows exactly one training")
            .remedy("name it: `legionctl get mt NAME -o report`"));
    };
    if kind.kind != "ModelTraining" {
        return Err(CliError::new(
            Code::Invalid,
            format!("-o report shows trainings, not {}", kind.plural),
        ));
    }
    let api: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let training = api
        .get_opt(name)
        .await?
        .ok_or_else(|| kinds::no_training(&session.namespace, name))?;
    let series = stored::series(session, &training).await;
    let text = report::render(&training, &series, report::width());
    output::bytes(out, text.as_bytes())?;
    Ok(Code::Ok)
}

async fn objects(session: &Session, get: &Get, kinds: &[ApiResource], out: &mut dyn Write) -> Result<Code> {
    let mut items = Vec::new();
    for kind in kinds {
        let api: Api<DynamicObject> = if get.all_namespaces {
            Api::all_with(session.client.clone(), kind)
        } else {
            Api::namespaced_with(session.client.clone(), &session.namespace, kind)
        };
        if let Some(name) = &get.name {
            let object = api
                .get_opt(name)
                .await?
                .ok_or_else(|| kinds::missing(&kind.kind, &session.namespace, name))?;
            output::structured(out, get.output, &object)?;
            return Ok(Code::Ok);
        }
        let mut params = ListParams::default();
        params.label_selector.clone_from(&get.selector);
        for mut object in api.list(&params).await? {
            // The API leaves them out in the items of a list, but a list of several kinds needs them.
            object.types.get_or_insert_with(|| kube::core::TypeMeta {
                api_version: kind.api_version.clone(),
                kind: kind.kind.clone(),
            });
            items.push(serde_json::to_value(object).map_err(|error| CliError::io("JSON", error))?);
        }
    }
    output::structured(
        out,
        get.output,
        &json!({"apiVersion": "v1", "kind": "List", "items": items}),
    )?;
    Ok(Code::Ok)
}

async fn tables(session: &Session, get: &Get, kinds: &[ApiResource], out: &mut dyn Write) -> Result<Code> {
    let mut any = false;
    for kind in kinds {
        let table = match fetch(session, get, kind).await {
            Err(error) if error.code == Code::NotFound && get.name.is_some() => {
                return Err(kinds::missing(
                    &kind.kind,
                    &session.namespace,
                    get.name.as_deref().unwrap_or_default(),
                ));
            }
            other => other?,
        };
        if table.rows.is_empty() {
            continue;
        }
        if any {
            output::line(out, format_args!(""))?;
        }
        any = true;
        // With several kinds, the name alone does not identify an object.
        let prefix = if kinds.len() > 1 {
            format!("{}/", kind.kind.to_lowercase())
        } else {
            String::new()
        };
        output::line(out, format_args!("{}", text(&table, get.all_namespaces, &prefix)))?;
    }
    if !any {
        let scope = if get.all_namespaces {
            "any namespace".to_owned()
        } else {
            format!("namespace {:?}", session.namespace)
        };
        output::line(out, format_args!("no objects found in {scope}"))?;
    }
    Ok(Code::Ok)
}

async fn fetch(session: &Session, get: &Get, kind: &ApiResource) -> Result<Table> {
    let mut path = if get.all_namespaces {
        format!("/apis/{}/{}", kind.api_version, kind.plural)
    } else {
        format!(
            "/apis/{}/namespaces/{}/{}",
            kind.api_version, session.namespace, kind.plural
        )
    };
    if let Some(name) = &get.name {
        path = format!("{path}/{name}");
    } else if let Some(selector) = &get.selector {
        let query: String = form_urlencoded(selector);
        path = format!("{path}?labelSelector={query}");
    }
    let request = Request::get(path)
        .header(ACCEPT, TABLE)
        .body(Vec::new())
        .map_err(|error| {
            CliError::new(
                Code::Invalid,
                format!("the name or the namespace is not valid: {error}"),
            )
        })?;
    Ok(session.client.request(request).await?)
}

/// Percent-encodes the characters that a query value must not contain.
fn form_urlencoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn text(table: &Table, namespaces: bool, prefix: &str) -> String {
    let shown: Vec<usize> = (0..table.column_definitions.len())
        .filter(|&index| table.column_definitions[index].priority == 0)
        .collect();
    let header = shown
        .iter()
        .map(|&index| table.column_definitions[index].name.to_uppercase());
    let mut lines: Vec<Vec<String>> = vec![
        namespaces
            .then(|| "NAMESPACE".to_owned())
            .into_iter()
            .chain(header)
            .collect(),
    ];
    for row in &table.rows {
        let namespace = namespaces.then(|| {
            row.object["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        });
        let cells = shown.iter().enumerate().map(|(position, &index)| {
            let cell = match row.cells.get(index) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            if position == 0 { format!("{prefix}{cell}") } else { cell }
        });
        lines.push(namespace.into_iter().chain(cells).collect());
    }
    columns::align(&lines).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_the_columns_of_priority_zero_in_the_order_of_the_api() {
        let table: Table = serde_json::from_value(json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Score"}, {"name": "Run", "priority": 1}, {"name": "Attempt"}],
            "rows": [
                {"cells": ["wine", "val_accuracy=0.97", "7f3a1c9e", 1], "object": {"metadata": {"namespace": "default"}}},
                {"cells": ["other", null, "", 12], "object": {"metadata": {"namespace": "team"}}},
            ],
        }))
        .unwrap();
        let lines = |text: String| {
            text.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines(text(&table, false, "modeltraining/")),
            [
                "NAME SCORE ATTEMPT",
                "modeltraining/wine val_accuracy=0.97 1",
                "modeltraining/other 12"
            ]
        );
        assert_eq!(
            lines(text(&table, true, "")),
            [
                "NAMESPACE NAME SCORE ATTEMPT",
                "default wine val_accuracy=0.97 1",
                "team other 12"
            ]
        );
    }

    #[test]
    fn selectors_are_encoded() {
        assert_eq!(form_urlencoded("a/b in (x, y)"), "a/b%20in%20%28x%2C%20y%29");
    }
}
