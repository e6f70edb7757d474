//! Results of a real API server for rules.

use serde_json::{Value, json};

use super::*;

fn spec_schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn rendered(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What Kubernetes 1.37 answered for each rule. `None` means that it accepted the rule.
#[test]
fn rules_are_type_checked_as_the_api_server_does() {
    let spec = |rule: &str| {
        json!({"type": "object", "properties": {
            "size": {"type": "integer"}, "name": {"type": "string"}, "ok": {"type": "boolean"},
            "list": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "num": {"type": "number"}, "when": {"type": "string", "format": "date-time"},
            "sub": {"type": "object", "properties": {"x": {"type": "integer"}}},
        }, "x-kubernetes-validations": [{"rule": rule}]})
    };
    let mut wrong = Vec::new();
    for (rule, refusal) in CEL_VERDICTS {
        let found = match CrdSchema::compile(&spec_schema(spec(rule))) {
            Ok(_) => Vec::new(),
            Err(errors) => rendered(&errors),
        };
        let right = match refusal {
            None => found.is_empty(),
            Some(refusal) => found.iter().any(|e| e.contains(refusal)),
        };
        if !right {
            wrong.push(format!("{rule}: {found:?}, not {refusal:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_message_expression_gives_a_string() {
    let rule = |message: &str| {
        spec_schema(json!({"type": "object", "properties": {"size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "true", "messageExpression": message}]}))
    };
    for (message, refusal) in [
        ("self.size", "messageExpression must evaluate to a string"),
        (" ", "messageExpression must be non-empty if specified"),
        (
            "self.nope",
            "messageExpression compilation failed: undefined field 'nope'",
        ),
    ] {
        let found = rendered(&CrdSchema::compile(&rule(message)).expect_err(message));
        assert!(found[0].ends_with(refusal), "{message}: {found:?}");
    }
    CrdSchema::compile(&rule("'size is ' + string(self.size)")).unwrap();
}

/// Rules over the schema above, and the result of a real API server.
const CEL_VERDICTS: &[(&str, Option<&str>)] = &[
    (
        r#"self.size + "x" == "a""#,
        Some("found no matching overload for '_+_' applied to '(int, string)'"),
    ),
    ("self.nope > 1", Some("undefined field 'nope'")),
    (
        "foo(self.size)",
        Some("undeclared reference to 'foo' (in container '')"),
    ),
    ("self.size", Some("cel expression must evaluate to a bool")),
    (
        r#"self.size == "a""#,
        Some("found no matching overload for '_==_' applied to '(int, string)'"),
    ),
    (
        "self.name.startsWith(1)",
        Some("found no matching overload for 'startsWith' applied to 'string.(int)'"),
    ),
    (
        "self.name.nope()",
        Some("undeclared reference to 'nope' (in container '')"),
    ),
    (
        "size(self.size) > 1",
        Some("found no matching overload for 'size' applied to '(int)'"),
    ),
    (
        "self.list.all(x, x > 1)",
        Some("found no matching overload for '_>_' applied to '(string, int)'"),
    ),
    (
        "self.list.exists(x, x)",
        Some("expected type 'bool' but found 'string'"),
    ),
    (
        "self.map.all(k, k > 1)",
        Some("found no matching overload for '_>_' applied to '(string, int)'"),
    ),
    (
        r#"self.map["a"] == "b""#,
        Some("found no matching overload for '_==_' applied to '(int, string)'"),
    ),
    (
        "!self.size",
        Some("found no matching overload for '!_' applied to '(int)'"),
    ),
    ("self.size && true", Some("expected type 'bool' but found 'int'")),
    ("has(self)", Some("invalid argument to has() macro")),
    ("has(self.nope)", Some("undefined field 'nope'")),
    (
        "self.when > self.name",
        Some("found no matching overload for '_>_' applied to '(timestamp, string)'"),
    ),
    ("self.num > self.size", None),
    (
        "self.num == 1",
        Some("found no matching overload for '_==_' applied to '(double, int)'"),
    ),
    (
        "self.size / 2.0 > 1.0",
        Some("found no matching overload for '_/_' applied to '(int, double)'"),
    ),
    (
        r#"self.ok ? 1 : "a""#,
        Some("found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
    ),
    (
        "self.ok ? self.size : 1",
        Some("cel expression must evaluate to a bool"),
    ),
    (r#""a" in self.map"#, None),
    (
        "1 in self.list",
        Some("found no matching overload for '@in' applied to '(int, list(string))'"),
    ),
    (
        "self.list[0] == 1",
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    (
        r#"self.list.map(x, x + "a").size() > "1""#,
        Some("found no matching overload for '_>_' applied to '(int, string)'"),
    ),
    (
        "url(self.name).getHost() == 1",
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    (
        r#"quantity(self.size) == quantity("1")"#,
        Some("found no matching overload for 'quantity' applied to '(int)'"),
    ),
    (r#"self.name.matches("[")"#, Some("invalid matches argument")),
    ("oldSelf.size < self.size", None),
    (
        "duration(self.name) > 1",
        Some("found no matching overload for '_>_' applied to '(duration, int)'"),
    ),
    ("self.sub.y == 1", Some("undefined field 'y'")),
    (
        "self.list.sum() > 1",
        Some("found no matching overload for 'sum' applied to 'list(string).()'"),
    ),
    ("self.list.isSorted()", None),
    (r#"self.name.format([1]) == "a""#, None),
    (r#""%d".format([1]) == "1""#, None),
    (r#"self.list == ["a"]"#, None),
    (
        "self.list == [1]",
        Some("found no matching overload for '_==_' applied to '(list(string), list(int))'"),
    ),
    ("self == self", None),
    (
        r#"self.sub == {"x":1}"#,
        Some("found no matching overload for '_==_' applied to '(object, map(string, int))'"),
    ),
    (r#"dyn(self.size) == "a""#, None),
    ("type(self.size) == int", None),
    (r#"string(self.size) == "1""#, None),
    ("int(self.name) == 1", None),
    (
        r#"self.name + 1 == "a""#,
        Some("found no matching overload for '_+_' applied to '(string, int)'"),
    ),
    (
        r#"-self.name == "a""#,
        Some("found no matching overload for '-_' applied to '(string)'"),
    ),
    ("self.size % 2 == 0", None),
    (
        "self.num % 2 == 0",
        Some("found no matching overload for '_%_' applied to '(double, int)'"),
    ),
    (
        r#"self.when.getFullYear() > "a""#,
        Some("found no matching overload for '_>_' applied to '(int, string)'"),
    ),
    (r#"timestamp("2020-01-01T00:00:00Z") < self.when"#, None),
    ("self.name.size() > 3", None),
    (
        "self.name.contains(self.list)",
        Some("found no matching overload for 'contains' applied to 'string.(list(string))'"),
    ),
    ("true", None),
    ("false", None),
    ("1", Some("cel expression must evaluate to a bool")),
    ("self.size in [1,2,3]", None),
    (
        "self.name in [1]",
        Some("found no matching overload for '@in' applied to '(string, list(int))'"),
    ),
    (r#"self.list.filter(x, x == "a").size() == self.size"#, None),
    (
        "self.list.exists_one(x, x == 1)",
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    (
        "self.unknown().foo",
        Some("undeclared reference to 'unknown' (in container '')"),
    ),
    ("ip(self.name).family() == 4", None),
    (
        "isIP(self.size)",
        Some("found no matching overload for 'isIP' applied to '(int)'"),
    ),
    (
        "self.name.lowerAscii() == 1",
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    (
        r#"self.name.split(",")[0] == 1"#,
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    (r#"self.name.split(",").all(x, x == "a")"#, None),
    (
        "sets.contains(self.list, [1])",
        Some("found no matching overload for 'sets.contains' applied to '(list(string), list(int))'"),
    ),
    (
        r#"math.greatest(self.size, 1) > "a""#,
        Some("undeclared reference to 'math' (in container '')"),
    ),
    (
        r#"self.name.find("a") == 1"#,
        Some("found no matching overload for '_==_' applied to '(string, int)'"),
    ),
    ("optional.of(self.size).hasValue()", None),
    (
        r#"self.?size.orValue(1) == "a""#,
        Some("found no matching overload for '_==_' applied to '(int, string)'"),
    ),
    (
        r#"self.?size.orValue("a") == "a""#,
        Some("found no matching overload for 'orValue' applied to 'optional_type(int).(string)'"),
    ),
    (r#"self.metadata.name == "a""#, Some("undefined field 'metadata'")),
    (
        r#"[1, "a"].size() == 2"#,
        Some("expected type 'int' but found 'string'"),
    ),
    (
        "self.size == null",
        Some("found no matching overload for '_==_' applied to '(int, null)'"),
    ),
    ("self.sub == null", None),
    (
        r#"self["size"] == 1"#,
        Some("found no matching overload for '_[_]' applied to '(object, string)'"),
    ),
    (
        r#""x" in self.sub"#,
        Some("found no matching overload for '@in' applied to '(string, object)'"),
    ),
    (
        "size(self.sub) > 0",
        Some("found no matching overload for 'size' applied to '(object)'"),
    ),
    (
        "self.name.all(c, true)",
        Some("expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)"),
    ),
    ("self.size.x == 1", Some("type 'int' does not support field selection")),
    (
        "self.list == null",
        Some("found no matching overload for '_==_' applied to '(list(string), null)'"),
    ),
    ("self.list.distinct() == self.list", None),
    (
        "self.list.flatten() == self.list",
        Some("found no matching overload for 'flatten' applied to 'list(string).()'"),
    ),
    ("self.list.first().hasValue()", None),
    ("lists.range(3).size() == 3", None),
    (r#"strings.quote(self.name) == "a""#, None),
    (r#""%s %d".format(["a", 1]) == "b""#, None),
    (
        r#"string(self.list) == "a""#,
        Some("found no matching overload for 'string' applied to '(list(string))'"),
    ),
    (
        "bool(self.size)",
        Some("found no matching overload for 'bool' applied to '(int)'"),
    ),
    ("semver(self.name).major() == 1", None),
    (r#"format.named("x").hasValue()"#, None),
    (
        r#"base64.encode(b"x") == "a""#,
        Some("undeclared reference to 'base64' (in container '')"),
    ),
    (
        r#"{"a":1, "b":"c"}.size() == 2"#,
        Some("expected type 'int' but found 'string'"),
    ),
    (
        "self.list.size(1) == 1",
        Some("found no matching overload for 'size' applied to 'list(string).(int)'"),
    ),
    (
        "startsWith(self.name)",
        Some("found no matching overload for 'startsWith' applied to '(string)'"),
    ),
    (
        r#"self.name.url().getHost() == "a""#,
        Some("found no matching overload for 'url' applied to 'string.()'"),
    ),
    (
        "self.list.map(x, x.y).size() == 1",
        Some("type 'string' does not support field selection"),
    ),
    (r#"self.list.map(x, x == "a", x).size() == 1"#, None),
    ("self.?sub.?x.orValue(1) == 1", None),
    ("has(self.sub) && has(self.sub.x) && self.sub.x > 1", None),
    ("self.map.exists(k, self.map[k] > 1)", None),
];
