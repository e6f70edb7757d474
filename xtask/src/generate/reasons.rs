//! `docs/reference/reasons.md`: every reason with its meaning and remedy.

use std::fmt::Write as _;

use legion_api::{Reason, ReasonKind};

use super::{File, NOTE, cell};

const KINDS: [(ReasonKind, &str, &str); 5] = [
    (
        ReasonKind::Success,
        "Success",
        "The resource is what its spec asks for.",
    ),
    (ReasonKind::Progress, "Progress", "Work is under way; nothing is wrong."),
    (
        ReasonKind::Waiting,
        "Waiting",
        "Something outside the resource is missing or refuses. It heals by itself when that appears: nothing needs to be applied again.",
    ),
    (
        ReasonKind::Invalid,
        "Invalid",
        "The spec itself is wrong: only a change of the resource helps.",
    ),
    (
        ReasonKind::Failure,
        "Failure",
        "The run has failed for good (`Succeeded=False`, `Stalled=True`).",
    ),
];

pub(super) fn file() -> File {
    let mut text = format!(
        "<!-- {NOTE} -->\n# Reasons\n\nThe `reason` of conditions, events and metric labels comes from this one list. Reasons are stable: scripts and\n\
         dashboards may compare them. The condition's message names the field, the value and what to do; the remedy here is the\n\
         one that is given where the message has nothing more specific.\n"
    );
    for (kind, title, meaning) in KINDS {
        let _ = write!(
            text,
            "\n## {title}\n\n{meaning}\n\n| reason | meaning | remedy |\n|---|---|---|\n"
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
