//! Argo CD's health checks, run by the Lua interpreter and the version that Argo CD embeds.

use std::{collections::BTreeSet, fmt::Write as _, fs, process::Command};

use anyhow::Context as _;
use legion_tests::{local::repository, tool};
use serde_json::Value;

use crate::states::{self, ObjectState};

/// The health that Argo CD must show.
fn wanted(state: &ObjectState) -> &'static str {
    let suspended = state.name == "Suspended";
    match state.verdict.as_str() {
        "Current" => "Healthy",
        "Failed" => "Degraded",
        _ if suspended => "Suspended",
        _ => "Progressing",
    }
}

#[test]
fn argo_cd_shows_the_right_health_for_every_state() -> anyhow::Result<()> {
    let mut states = states::all()?;
    // Argo CD shows an object under deletion without a health check.
    states.retain(|state| state.verdict != "Terminating");
    let config = fs::read_to_string(repository().join("docs/guides/gitops/argocd/argocd-cm.yaml"))?;
    let config: Value = serde_saphyr::from_str(&config)?;
    let mut program = String::new();
    for state in &states {
        let key = format!("resource.customizations.health.legion-platform.org_{}", state.kind());
        let check = config["data"][&key].as_str().with_context(|| key.clone())?;
        // As in Argo CD: the check is a chunk, and the object is the global `obj`.
        let _ = writeln!(program, "obj = {}", lua(&state.object));
        let _ = writeln!(
            program,
            "do local hs = assert(loadstring({}))()",
            lua(&Value::from(check))
        );
        program.push_str("print(hs.status .. '\\t' .. string.gsub(hs.message, '%s+', ' ')) end\n");
    }
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("checks.lua");
    fs::write(&file, &program)?;
    let said = tool::run(Command::new(tool::path("glua")?).arg(&file), "")?;
    assert!(said.ok, "{}", said.all);
    let verdicts: Vec<(&str, &str)> = said.out.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(verdicts.len(), states.len(), "{}", said.all);
    let mut seen = BTreeSet::new();
    for (state, (verdict, message)) in states.iter().zip(verdicts) {
        seen.insert(verdict);
        assert_eq!(verdict, wanted(state), "{}: {message}", state.title());
        let conditions = state.object["status"]["conditions"].as_array().into_iter().flatten();
        let reasons: Vec<&str> = conditions
            .filter_map(|condition| condition["reason"].as_str())
            .collect();
        let says_why = reasons.iter().any(|reason| message.starts_with(reason));
        assert!(
            says_why || message.contains("reconciled"),
            "{}: {message}",
            state.title()
        );
    }
    assert_eq!(
        seen,
        BTreeSet::from(["Degraded", "Healthy", "Progressing", "Suspended"])
    );
    Ok(())
}

/// Renders a value as a Lua literal. Argo CD turns objects and lists into tables, and all numbers into floats.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let bytes: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
            format!("\"{bytes}\"")
        }
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("[{}]={}", lua(&Value::from(name.as_str())), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}
