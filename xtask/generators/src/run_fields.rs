//! `docs/reference/run-fields.md`: what a change of each field of a ModelTraining does.

use legion_plan::training::fields;

use super::{File, NOTE, cell};

/// The page, from the planner's own table.
pub(super) fn file() -> File {
    let mut text = format!(
        "<!-- {NOTE} -->\n\n# What a change of a field does\n\n\
         A change with *new run* trains again and replaces the status. A change with *next attempt only* applies from the next\n\
         pod on and restarts nothing. A field with its default value counts as absent, so writing out a default changes\n\
         nothing. Labels and annotations of the ModelTraining start nothing. The content of a ConfigMap source is part of the\n\
         run: a change of it starts a new run.\n\n\
         | field | a change means | |\n|---|---|---|\n"
    );
    for field in fields() {
        text.push_str(&format!(
            "| `spec.{}` | {} | {} |\n",
            field.name,
            field.effect.as_str(),
            cell(field.note)
        ));
    }
    File::new("docs/reference/run-fields.md", text)
}
