//! Type checks of CEL rules. The API server type-checks rules when a custom resource is defined. It refuses the
//! definition early, instead of every object later.
//!
//! A type that is not known for certain matches every type. Kubernetes therefore refuses every rule that is refused
//! here. Its checker may also refuse a rule that is accepted here.

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::field_names::escape;
use super::node::{Additional, Node};
use super::regexp;
use super::types::{self, BOOL, Type};

/// Identifiers of types.
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

/// Checks an expression of a rule at `node` and returns its type. The error is the message of the API server's
/// compiler.
pub(super) fn check<'a>(expression: &'a IdedExpr, node: &'a Node, optional_old_self: bool) -> Result<Type<'a>, String> {
    let this = Type::of(node);
    let old = if optional_old_self {
        Type::Optional(Box::new(this.clone()))
    } else {
        this.clone()
    };
    let mut scope = Scope {
        variables: vec![("self", this), ("oldSelf", old)],
        mixed_lists: false,
    };
    scope.resolve(expression)
}

struct Scope<'a> {
    variables: Vec<(&'a str, Type<'a>)>,
    /// Whether the elements of a list may differ in type, as in the arguments of `format`.
    mixed_lists: bool,
}

impl<'a> Scope<'a> {
    fn find(&self, name: &str) -> Option<&Type<'a>> {
        self.variables.iter().rev().find(|(n, _)| *n == name).map(|(_, t)| t)
    }

    fn resolve(&mut self, expression: &'a IdedExpr) -> Result<Type<'a>, String> {
        match &expression.expr {
            Expr::Unspecified => Ok(Type::Dyn),
            Expr::Literal(literal) => Ok(Type::Simple(match literal {
                LiteralValue::Boolean(_) => "bool",
                LiteralValue::Bytes(_) => "bytes",
                LiteralValue::Double(_) => "double",
                LiteralValue::Int(_) => "int",
                LiteralValue::Null => "null",
                LiteralValue::String(_) => "string",
                LiteralValue::UInt(_) => "uint",
            })),
            Expr::Ident(name) => match self.find(name) {
                Some(known) => Ok(known.clone()),
                None if TYPES.contains(&name.as_str()) => Ok(Type::Simple("type")),
                None => Err(undeclared(name)),
            },
            Expr::Select(select) => {
                let operand = self.resolve(&select.operand)?;
                let field = field(&operand, &select.field)?;
                Ok(if select.test { BOOL } else { field })
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => {
                let element = self.same(&list.elements)?;
                Ok(Type::List(Box::new(element)))
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        keys.push(&entry.key);
                        values.push(&entry.value);
                    }
                }
                let (key, value) = (self.same(keys)?, self.same(values)?);
                Ok(Type::Map(Box::new(key), Box::new(value)))
            }
            Expr::Struct(object) => {
                for entry in &object.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        self.resolve(&field.value)?;
                    }
                }
                Ok(Type::Dyn)
            }
        }
    }

    /// Returns the common type of the elements of a literal.
    fn same(&mut self, elements: impl IntoIterator<Item = &'a IdedExpr>) -> Result<Type<'a>, String> {
        let mixed = std::mem::take(&mut self.mixed_lists);
        let mut common = Type::Free;
        for element in elements {
            let found = self.resolve(element)?;
            common = match common.join(&found) {
                Some(joined) => joined,
                None if mixed => Type::Dyn,
                None => return Err(format!("expected type '{common}' but found '{found}'")),
            };
        }
        Ok(common)
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<Type<'a>, String> {
        let name = call.func_name.as_str();
        if let (
            operators::OPT_SELECT,
            [
                operand,
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(wanted)),
                    ..
                },
            ],
        ) = (name, call.args.as_slice())
        {
            let operand = self.resolve(operand)?;
            return Ok(match field(&operand, wanted.inner())? {
                Type::Optional(inner) => Type::Optional(inner),
                plain => Type::Optional(Box::new(plain)),
            });
        }
        // In `sets.contains(..)`, the target is part of the name, not a value.
        let mut qualified = name.to_owned();
        let receiver = match call.target.as_deref() {
            Some(IdedExpr {
                expr: Expr::Ident(word),
                ..
            }) if self.find(word).is_none() && types::is_namespace(word) => {
                qualified = format!("{word}.{name}");
                None
            }
            Some(target) => Some(self.resolve(target)?),
            None => None,
        };
        if !types::is_function(&qualified) {
            return Err(undeclared(&qualified));
        }
        let mut arguments = Vec::with_capacity(call.args.len());
        for argument in &call.args {
            self.mixed_lists = name == "format";
            let found = self.resolve(argument);
            self.mixed_lists = false;
            arguments.push(found?);
        }
        if matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR)
            && let Some(wrong) = arguments.iter().find(|t| BOOL.join(t).is_none())
        {
            return Err(format!("expected type 'bool' but found '{wrong}'"));
        }
        if let (
            "matches",
            Some(IdedExpr {
                expr: Expr::Literal(LiteralValue::String(regex)),
                ..
            }),
        ) = (name, call.args.last())
            && regexp::compile(regex.inner()).is_err()
        {
            return Err("invalid matches argument".into());
        }
        types::call(&qualified, receiver.as_ref(), &arguments).ok_or_else(|| {
            let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let receiver = receiver.map_or_else(String::new, |r| format!("{r}."));
            let shown = shown.join(", ");
            format!("found no matching overload for '{qualified}' applied to '{receiver}({shown})'")
        })
    }

    fn comprehension(&mut self, comprehension: &'a ComprehensionExpr) -> Result<Type<'a>, String> {
        let range = self.resolve(&comprehension.iter_range)?;
        let accumulator = self.resolve(&comprehension.accu_init)?;
        let item = match range {
            Type::List(of) => *of,
            Type::Map(key, _) => *key,
            Type::Dyn | Type::Free => Type::Dyn,
            other => {
                return Err(format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
            }
        };
        let depth = self.variables.len();
        match &comprehension.iter_var2 {
            None => self.variables.push((&comprehension.iter_var, item)),
            Some(second) => self.variables.extend([
                (comprehension.iter_var.as_str(), Type::Dyn),
                (second.as_str(), Type::Dyn),
            ]),
        }
        self.variables.push((&comprehension.accu_var, accumulator));
        self.resolve(&comprehension.loop_cond)?;
        // The loop step determines the element type of a list that was initially empty.
        let gathered = self.resolve(&comprehension.loop_step)?;
        self.variables.pop();
        self.variables.push((&comprehension.accu_var, gathered));
        let result = self.resolve(&comprehension.result)?;
        self.variables.truncate(depth);
        Ok(result)
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

/// Returns the type of a value's field.
fn field<'a>(operand: &Type<'a>, name: &str) -> Result<Type<'a>, String> {
    match operand {
        Type::Dyn | Type::Free => Ok(Type::Dyn),
        Type::Map(_, value) => Ok((**value).clone()),
        Type::Optional(inner) => field(inner, name).map(|found| Type::Optional(Box::new(found))),
        Type::Object(node) => {
            let hidden = node.object_meta && name != "name" && name != "generateName";
            match node.properties.iter().find(|(property, _)| escape(property) == name) {
                Some((_, child)) if !hidden => Ok(Type::of(child)),
                None if matches!(node.additional, Additional::Any) => Ok(Type::Dyn),
                _ => Err(format!("undefined field '{name}'")),
            }
        }
        other => Err(format!("type '{other}' does not support field selection")),
    }
}
