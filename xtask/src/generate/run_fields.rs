//! `docs/reference/run-fields.md`: what a change of each field of a ModelTraining does.

use legion_plan::training::field_effects;

use super::{File, NOTE, cell};

/// The page, from the planner's own table.
pub(super) fn file() -> File {
    let mut text = format!(
        "<!-- {NOTE} -->\n\n# What a change of a field does\n\n\
         A *new run* trains again and replaces status; *next attempt only* counts from the next pod on and restarts nothing. A\n\
         field that stands at its default counts as absent: writing a default out changes nothing. Labels and annotations of\n\
         the ModelTraining start nothing. The content of a ConfigMap source belongs to the run: changing it is a new run.\n\n\
         | field | a change means | |\n|---|---|---|\n"
    );
    for line in field_effects() {
        text.push_str(&format!(
            "| `spec.{}` | {} | {} |\n",
            line.field,
            line.effect.as_str(),
            cell(line.note)
        ));
    }
    File::new("docs/reference/run-fields.md", text)
}
