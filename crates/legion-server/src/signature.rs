//! The signature of a model: what it takes and returns, in MLflow's notation.
//!
//! Source: `mlflow.types.schema`. `MLmodel` holds each part of the signature as JSON text.

use serde::Deserialize;
use serde_json::Value;

/// The type of a column that holds one scalar in each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Integer,
    /// 64-bit integer.
    Long,
    /// 32-bit floating point number.
    Float,
    /// 64-bit floating point number.
    Double,
    /// Text.
    String,
    /// Bytes. In JSON as base64.
    Binary,
    /// Time with nanoseconds.
    Datetime,
}

impl DataType {
    /// Returns whether its values are numbers.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Long | Self::Float | Self::Double)
    }

    /// Returns the name in MLflow's notation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::String => "string",
            Self::Binary => "binary",
            Self::Datetime => "datetime",
        }
    }
}

/// The type of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnType {
    /// One scalar in each row.
    Scalar(DataType),
    /// Any other type, such as `array`, `object` and `map`. MLflow itself checks such values.
    Nested(String),
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Name. Columns of a signature have all a name, or none has.
    pub name: Option<String>,
    /// Type.
    pub kind: ColumnType,
    /// Whether a request must have the column.
    pub required: bool,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name. The only tensor of a signature may have none.
    pub name: Option<String>,
    /// NumPy's name of the type, such as `float64`.
    pub dtype: String,
    /// Shape. -1 stands for any length.
    pub shape: Vec<i64>,
}

/// The inputs or the outputs of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Schema {
    /// A table.
    Columns(Vec<Column>),
    /// Tensors.
    Tensors(Vec<Tensor>),
}

impl Schema {
    /// Parses one part of a signature: a list of columns or of tensors.
    ///
    /// # Errors
    /// When the value is no list of MLflow's specifications. The text says where.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let specs = value.as_array().ok_or("it is not a list")?;
        let is_tensor = |spec: &Value| spec.get("type").is_some_and(|kind| kind == "tensor");
        if !specs.is_empty() && specs.iter().all(is_tensor) {
            let tensors = specs.iter().enumerate().map(|(index, spec)| tensor(index, spec));
            return Ok(Self::Tensors(tensors.collect::<Result<_, _>>()?));
        }
        let columns = specs.iter().enumerate().map(|(index, spec)| column(index, spec));
        Ok(Self::Columns(columns.collect::<Result<_, _>>()?))
    }
}

/// The signature of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// What the model takes. `None` if the signature leaves it open.
    pub inputs: Option<Schema>,
    /// What the model returns.
    pub outputs: Option<Schema>,
    /// Parameters of a prediction, as MLflow writes them.
    pub params: Vec<Value>,
}

impl Signature {
    /// Parses `signature` of an `MLmodel`, or `schema` of a GPPI descriptor. Each part is a value, or its JSON as text.
    ///
    /// # Errors
    /// When a part cannot be read. The text names it.
    pub fn parse(signature: &Value) -> Result<Self, String> {
        let part = |name: &str| -> Result<Option<Value>, String> {
            match signature.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => serde_json::from_str(text)
                    .map(|value: Value| (!value.is_null()).then_some(value))
                    .map_err(|error| format!("{name}: it is not JSON: {error}")),
                Some(value) => Ok(Some(value.clone())),
            }
        };
        let schema = |name: &str| -> Result<Option<Schema>, String> {
            let value = part(name)?;
            let schema = value.map(|value| Schema::parse(&value)).transpose();
            schema.map_err(|problem| format!("{name}: {problem}"))
        };
        let params = match part("params")? {
            None => Vec::new(),
            Some(Value::Array(params)) => params,
            Some(_) => return Err("params: it is not a list".to_owned()),
        };
        Ok(Self {
            inputs: schema("inputs")?,
            outputs: schema("outputs")?,
            params,
        })
    }
}

fn column(index: usize, spec: &Value) -> Result<Column, String> {
    let kind = spec.get("type").ok_or_else(|| format!("[{index}].type is missing"))?;
    let text = kind.as_str().ok_or_else(|| format!("[{index}].type is not text"))?;
    let kind = match DataType::deserialize(kind) {
        Ok(scalar) => ColumnType::Scalar(scalar),
        Err(_) => ColumnType::Nested(text.to_owned()),
    };
    // MLflow before 2.10 wrote `optional`.
    let flag = |name: &str| spec.get(name).and_then(Value::as_bool);
    let required = flag("required").or(flag("optional").map(|optional| !optional));
    Ok(Column {
        name: spec.get("name").and_then(Value::as_str).map(str::to_owned),
        kind,
        required: required.unwrap_or(true),
    })
}

fn tensor(index: usize, spec: &Value) -> Result<Tensor, String> {
    let of = spec
        .get("tensor-spec")
        .ok_or_else(|| format!("[{index}].tensor-spec is missing"))?;
    let dtype = of.get("dtype").and_then(Value::as_str);
    let shape = of.get("shape").and_then(Value::as_array);
    let shape: Option<Vec<i64>> = shape.and_then(|shape| shape.iter().map(Value::as_i64).collect());
    Ok(Tensor {
        name: spec.get("name").and_then(Value::as_str).map(str::to_owned),
        dtype: dtype
            .ok_or_else(|| format!("[{index}].tensor-spec.dtype is not text"))?
            .to_owned(),
        shape: shape.ok_or_else(|| format!("[{index}].tensor-spec.shape is not a list of integers"))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_have_names_types_and_may_be_optional() {
        let signature = Signature::parse(&json!({
            "inputs": r#"[{"type": "double", "name": "a", "required": true},
                {"type": "string", "name": "b", "optional": true},
                {"type": "array", "items": {"type": "long"}, "name": "c", "required": false}]"#,
            "outputs": r#"[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 2]}}]"#,
            "params": null,
        }))
        .unwrap();
        let column = |name: &str, kind, required| Column {
            name: Some(name.to_owned()),
            kind,
            required,
        };
        let columns = vec![
            column("a", ColumnType::Scalar(DataType::Double), true),
            column("b", ColumnType::Scalar(DataType::String), false),
            column("c", ColumnType::Nested("array".to_owned()), false),
        ];
        assert_eq!(signature.inputs, Some(Schema::Columns(columns)));
        let tensor = Tensor {
            name: None,
            dtype: "int64".to_owned(),
            shape: vec![-1, 2],
        };
        assert_eq!(signature.outputs, Some(Schema::Tensors(vec![tensor])));
        assert!(signature.params.is_empty());
    }

    #[test]
    fn a_signature_that_cannot_be_read_names_the_part() {
        for (wrong, message) in [
            (json!({"inputs": "["}), "inputs: it is not JSON"),
            (json!({"inputs": "{}"}), "inputs: it is not a list"),
            (json!({"outputs": [{"name": "a"}]}), "outputs: [0].type is missing"),
            (
                json!({"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "int64"}}]}),
                "inputs: [0].tensor-spec.shape is not a list of integers",
            ),
            (json!({"params": 1}), "params: it is not a list"),
        ] {
            let error = Signature::parse(&wrong).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
