//! `docs/reference/legionctl.md`: every command with its options, from the grammar itself.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::{File, NOTE, cell};

pub(super) fn file() -> File {
    let mut root = legion_cli::command();
    root.build();
    let mut text = format!("<!-- {NOTE} -->\n# legionctl\n\n{}\n", about(&root));
    text.push_str("\n## Exit codes\n\n| code | means |\n|---|---|\n");
    for (code, meaning) in legion_cli::exit::Code::ALL {
        let _ = writeln!(text, "| {} | {meaning} |", code as i32);
    }
    text.push_str("\n## Options of every command\n\n| option | meaning |\n|---|---|\n");
    for argument in root.get_arguments().filter(|argument| argument.is_global_set()) {
        option(&mut text, argument);
    }
    command(&mut text, &root, "legionctl");
    File::new("docs/reference/legionctl.md", text)
}

fn command(text: &mut String, parent: &Command, path: &str) {
    for child in parent
        .get_subcommands()
        .filter(|child| child.get_name() != "help" && !child.is_hide_set())
    {
        let path = format!("{path} {}", child.get_name());
        let mut own = child.clone();
        let usage = own.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim();
        let _ = write!(text, "\n## {path}\n\n{}\n\n    {usage}\n", about(child));
        let arguments: Vec<&Arg> = child
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && !argument.is_hide_set())
            .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
            .collect();
        if !arguments.is_empty() {
            text.push_str("\n| argument | meaning |\n|---|---|\n");
            for argument in arguments {
                option(text, argument);
            }
        }
        command(text, child, &path);
    }
}

fn about(command: &Command) -> String {
    let text = command
        .get_long_about()
        .or_else(|| command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    // clap takes the full stop away from what it shows as one line.
    if text.is_empty() || text.ends_with('.') {
        text
    } else {
        format!("{text}.")
    }
}

fn option(text: &mut String, argument: &Arg) {
    let mut name = String::new();
    if let Some(short) = argument.get_short() {
        let _ = write!(name, "-{short}, ");
    }
    let value: Vec<String> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => {
            let _ = write!(name, "--{long} {}", value.join(" "));
        }
        Some(long) => {
            let _ = write!(name, "--{long}");
        }
        None => name.push_str(&value.join(" ")),
    }
    let mut meaning = argument
        .get_long_help()
        .or_else(|| argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    if !meaning.is_empty() && !meaning.ends_with('.') {
        meaning.push('.');
    }
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        let _ = write!(meaning, " One of {}.", values.join(", "));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if !defaults.is_empty() {
        let _ = write!(meaning, " Default: {}.", defaults.join(", "));
    }
    let _ = writeln!(text, "| `{name}` | {} |", cell(&meaning));
}
