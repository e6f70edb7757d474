//! Whether a CEL rule names only what its schema has.
//!
//! The API server type-checks rules when a custom resource is defined. Of that, what catches mistakes
//! early is done here: variables that do not exist and fields that the schema does not declare.
//! Wrong operand types and unknown functions show only when a rule runs.

use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::cel::escape;
use super::node::{Additional, JsonType, Node};

/// Identifiers that stand for types.
const TYPES: [&str; 12] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "dyn",
    "optional_type",
];

/// What is known of a subexpression: its schema, or nothing.
type Known<'a> = Option<&'a Node>;

/// Checks a rule that stands at `node`; the error is what the compiler of the API server says.
pub(super) fn check(expression: &IdedExpr, node: &Node, optional_old_self: bool) -> Result<(), String> {
    let old = if optional_old_self { None } else { Some(node) };
    let mut scope = Scope {
        variables: vec![("self", Some(node)), ("oldSelf", old)],
    };
    scope.resolve(expression).map(drop)
}

struct Scope<'a> {
    variables: Vec<(&'a str, Known<'a>)>,
}

impl<'a> Scope<'a> {
    fn find(&self, name: &str) -> Option<Known<'a>> {
        self.variables
            .iter()
            .rev()
            .find(|(n, _)| *n == name)
            .map(|(_, known)| *known)
    }

    fn resolve(&mut self, expression: &'a IdedExpr) -> Result<Known<'a>, String> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(None),
            Expr::Ident(name) => match self.find(name) {
                Some(known) => Ok(known),
                None if TYPES.contains(&name.as_str()) => Ok(None),
                None => Err(format!("undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => {
                let operand = self.resolve(&select.operand)?;
                operand.map_or(Ok(None), |node| field(node, &select.field))
            }
            Expr::Call(call) => {
                // `math.greatest(..)`: the target is a namespace, not a value.
                let target = match call.target.as_deref() {
                    Some(IdedExpr {
                        expr: Expr::Ident(name),
                        ..
                    }) if self.find(name).is_none() => None,
                    Some(target) => self.resolve(target)?,
                    None => None,
                };
                let mut arguments = Vec::with_capacity(call.args.len());
                for argument in &call.args {
                    arguments.push(self.resolve(argument)?);
                }
                let indexed = target.or_else(|| arguments.first().copied().flatten());
                Ok(if call.func_name == "_[_]" {
                    indexed.and_then(element)
                } else {
                    None
                })
            }
            Expr::Comprehension(comprehension) => {
                let range = self.resolve(&comprehension.iter_range)?;
                self.resolve(&comprehension.accu_init)?;
                let depth = self.variables.len();
                // Over a map the variable is the key, of which there is no schema.
                let item = range.filter(|n| n.kind == Some(JsonType::Array)).and_then(element);
                self.variables.push((&comprehension.iter_var, item));
                if let Some(second) = &comprehension.iter_var2 {
                    self.variables.push((second, None));
                }
                self.variables.push((&comprehension.accu_var, None));
                for part in [
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.resolve(part)?;
                }
                self.variables.truncate(depth);
                Ok(None)
            }
            Expr::List(list) => {
                for item in &list.elements {
                    self.resolve(item)?;
                }
                Ok(None)
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr)),
            Expr::Struct(object) => self.entries(object.entries.iter().map(|e| &e.expr)),
        }
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Result<Known<'a>, String> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.resolve(&field.value)?,
                EntryExpr::MapEntry(entry) => {
                    self.resolve(&entry.key)?;
                    self.resolve(&entry.value)?
                }
            };
        }
        Ok(None)
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Result<Known<'a>, String> {
    if let Additional::Schema(value) = &node.additional {
        return Ok(Some(value));
    }
    // A schema that declares nothing is a value of unknown shape.
    if node.kind != Some(JsonType::Object) || node.properties.is_empty() {
        return Ok(None);
    }
    let hidden = node.object_meta && name != "name" && name != "generateName";
    match node.properties.iter().find(|(property, _)| escape(property) == name) {
        Some((_, child)) if !hidden => Ok(Some(child)),
        _ => Err(format!("undefined field '{name}'")),
    }
}

fn element(node: &Node) -> Known<'_> {
    match &node.additional {
        Additional::Schema(value) => Some(value),
        _ => node.items.as_deref(),
    }
}
