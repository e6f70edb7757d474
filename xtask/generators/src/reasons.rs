//! `docs/reference/reasons.md`: every reason with its meaning and remedy.

use std::fmt::Write as _;

use legion_api::{Reason, ReasonKind};

use super::{File, NOTE, cell, paragraph};

const KINDS: [(ReasonKind, &str, &str); 5] = [
    (
        ReasonKind::Success,
        "Success",
        "The resource is what its spec asks for.",
    ),
    (
        ReasonKind::Progress,
        "Progress",
        "Work is in progress. Nothing is wrong.",
    ),
    (
        ReasonKind::Waiting,
        "Waiting",
        "Something outside the resource is missing or refuses. Work continues when this changes. Nothing needs to be applied again.",
    ),
    (
        ReasonKind::Invalid,
        "Invalid",
        "The spec itself is wrong. Only a change of the resource helps.",
    ),
    (
        ReasonKind::Failure,
        "Failure",
        "The run has failed for good (`Succeeded=False`, `Stalled=True`).",
    ),
];

pub(super) fn file() -> File {
    let mut text = format!(
        "<!-- {NOTE} -->\n# Reasons\n\nThis is the complete list for the `reason` of conditions, events and metric labels. Reasons are stable: scripts and\n\
         dashboards may compare them. The condition's message names the field, the value and the remedy. The remedy in this\n\
         list is the general one, for messages without a more specific one.\n"
    );
    for (kind, title, meaning) in KINDS {
        let _ = write!(
            text,
            "\n## {title}\n\n{}\n\n| reason | meaning | remedy |\n|---|---|---|\n",
            paragraph(meaning)
        );
        for reason in Reason::ALL.iter().filter(|reason| reason.kind() == kind) {
            let remedy = match reason.remedy() {
                "" => "none needed",
                remedy => remedy,
            };
            let _ = writeln!(text, "| `{reason}` | {} | {} |", cell(&reason.meaning()), cell(remedy));
        }
    }
    File::new("docs/reference/reasons.md", text)
}
