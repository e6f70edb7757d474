//! kstatus, the library with which Flux, Helm and others wait.

use std::{collections::BTreeSet, process::Command};

use legion_tests::tool;
use serde_json::Value;

use crate::states;

#[test]
fn kstatus_computes_the_right_status_for_every_state() -> anyhow::Result<()> {
    let states = states::all()?;
    let input: String = states.iter().map(|state| format!("{}\n", state.object)).collect();
    let said = tool::run(&mut Command::new(tool::path("kstatus")?), &input)?;
    assert!(said.ok, "{}", said.all);
    let verdicts: Vec<Value> = said.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(verdicts.len(), states.len());
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (state, verdict) in states.iter().zip(&verdicts) {
        seen.insert(verdict["status"].to_string());
        if verdict["status"] != state.verdict {
            wrong.push(format!("{}: {verdict}, not {}", state.title(), state.verdict));
        }
        // A failure is reported with the message of the condition.
        let stalled = state.object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|it| it["type"] == "Stalled");
        if verdict["status"] == "Failed" && Some(&verdict["message"]) != stalled.map(|it| &it["message"]) {
            wrong.push(format!("{}: the message is {}", state.title(), verdict["message"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        seen.len(),
        4,
        "Current, InProgress, Failed and Terminating are all met: {seen:?}"
    );
    Ok(())
}
