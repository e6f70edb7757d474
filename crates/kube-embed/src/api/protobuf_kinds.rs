//! The messages of Kubernetes' protobuf that the server can decode: number, JSON name and type of each field.

#[derive(Clone, Copy)]
pub(super) enum FieldType {
    Text,
    Int,
    /// A number that JSON leaves out when it is 0.
    Count,
    Double,
    Bool,
    /// A Boolean that JSON leaves out when it is false.
    Flag,
    Time,
    Texts,
    TextMap,
    /// Base64 in JSON.
    Bytes,
    /// Values are base64 in JSON.
    BytesMap,
    /// A message with JSON as its bytes (1).
    Json,
    Jsons,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    MessageMap(&'static [Field]),
    /// A message whose JSON is the value of one of its fields: the first that is there.
    OneOf(&'static [Field]),
}

/// Number, JSON name, type.
pub(super) type Field = (u64, &'static str, FieldType);

const META: &[Field] = &[
    (1, "name", FieldType::Text),
    (2, "generateName", FieldType::Text),
    (3, "namespace", FieldType::Text),
    (5, "uid", FieldType::Text),
    (6, "resourceVersion", FieldType::Text),
    (7, "generation", FieldType::Int),
    (8, "creationTimestamp", FieldType::Time),
    (9, "deletionTimestamp", FieldType::Time),
    (10, "deletionGracePeriodSeconds", FieldType::Int),
    (11, "labels", FieldType::TextMap),
    (12, "annotations", FieldType::TextMap),
    (13, "ownerReferences", FieldType::Messages(OWNER)),
    (14, "finalizers", FieldType::Texts),
];
const OWNER: &[Field] = &[
    (1, "kind", FieldType::Text),
    (3, "name", FieldType::Text),
    (4, "uid", FieldType::Text),
    (5, "apiVersion", FieldType::Text),
    (6, "controller", FieldType::Bool),
    (7, "blockOwnerDeletion", FieldType::Bool),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "data", FieldType::TextMap),
    (3, "binaryData", FieldType::BytesMap),
    (4, "immutable", FieldType::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "data", FieldType::BytesMap),
    (3, "type", FieldType::Text),
    (4, "stringData", FieldType::TextMap),
    (5, "immutable", FieldType::Bool),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(&[(1, "finalizers", FieldType::Texts)])),
];
const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (4, "automountServiceAccountToken", FieldType::Bool),
];
const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(ACCESS_SPEC)),
];
const ACCESS_SPEC: &[Field] = &[
    (
        1,
        "resourceAttributes",
        FieldType::Message(&[
            (1, "namespace", FieldType::Text),
            (2, "verb", FieldType::Text),
            (3, "group", FieldType::Text),
            (4, "version", FieldType::Text),
            (5, "resource", FieldType::Text),
            (6, "subresource", FieldType::Text),
            (7, "name", FieldType::Text),
        ]),
    ),
    (
        2,
        "nonResourceAttributes",
        FieldType::Message(&[(1, "path", FieldType::Text), (2, "verb", FieldType::Text)]),
    ),
];
const RULES_REVIEW: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(&[(1, "namespace", FieldType::Text)])),
];
const SUBJECT_REVIEW: &[Field] = &[(1, "metadata", FieldType::Message(META))];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", FieldType::Int),
    (
        2,
        "preconditions",
        FieldType::Message(&[(1, "uid", FieldType::Text), (2, "resourceVersion", FieldType::Text)]),
    ),
    (3, "orphanDependents", FieldType::Bool),
    (4, "propagationPolicy", FieldType::Text),
    (5, "dryRun", FieldType::Texts),
];
/// The envelope. Its content (2) is decoded after the kind is known.
pub(super) const UNKNOWN: &[Field] = &[(
    1,
    "typeMeta",
    FieldType::Message(&[(1, "apiVersion", FieldType::Text), (2, "kind", FieldType::Text)]),
)];

/// Returns the fields of a kind. `None` if it is accepted as JSON only.
pub(super) fn fields(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => SUBJECT_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        "CustomResourceDefinition" => CUSTOM_RESOURCE_DEFINITION,
        _ => return None,
    })
}

/// The numbers are those of `generated.proto` in `k8s.io/apiextensions-apiserver`. Go clients with typed structs create
/// CRDs in this form, such as controller-runtime's test environment.
static CUSTOM_RESOURCE_DEFINITION: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(SPEC)),
];
static SPEC: &[Field] = &[
    (1, "group", FieldType::Text),
    (3, "names", FieldType::Message(NAMES)),
    (4, "scope", FieldType::Text),
    (7, "versions", FieldType::Messages(VERSION)),
    (9, "conversion", FieldType::Message(CONVERSION)),
    (10, "preserveUnknownFields", FieldType::Flag),
];
static NAMES: &[Field] = &[
    (1, "plural", FieldType::Text),
    (2, "singular", FieldType::Text),
    (3, "shortNames", FieldType::Texts),
    (4, "kind", FieldType::Text),
    (5, "listKind", FieldType::Text),
    (6, "categories", FieldType::Texts),
];
static CONVERSION: &[Field] = &[
    (1, "strategy", FieldType::Text),
    (2, "webhook", FieldType::Message(WEBHOOK)),
];
static WEBHOOK: &[Field] = &[
    (2, "clientConfig", FieldType::Message(CLIENT_CONFIG)),
    (3, "conversionReviewVersions", FieldType::Texts),
];
static CLIENT_CONFIG: &[Field] = &[
    (1, "service", FieldType::Message(SERVICE)),
    (2, "caBundle", FieldType::Bytes),
    (3, "url", FieldType::Text),
];
static SERVICE: &[Field] = &[
    (1, "namespace", FieldType::Text),
    (2, "name", FieldType::Text),
    (3, "path", FieldType::Text),
    (4, "port", FieldType::Int),
];
static VERSION: &[Field] = &[
    (1, "name", FieldType::Text),
    (2, "served", FieldType::Bool),
    (3, "storage", FieldType::Bool),
    (4, "schema", FieldType::Message(VALIDATION)),
    (5, "subresources", FieldType::Message(SUBRESOURCES)),
    (6, "additionalPrinterColumns", FieldType::Messages(COLUMN)),
    (7, "deprecated", FieldType::Flag),
    (8, "deprecationWarning", FieldType::Text),
    (
        9,
        "selectableFields",
        FieldType::Messages(&[(1, "jsonPath", FieldType::Text)]),
    ),
];
static SUBRESOURCES: &[Field] = &[
    (1, "status", FieldType::Message(&[])),
    (2, "scale", FieldType::Message(SCALE)),
];
static SCALE: &[Field] = &[
    (1, "specReplicasPath", FieldType::Text),
    (2, "statusReplicasPath", FieldType::Text),
    (3, "labelSelectorPath", FieldType::Text),
];
static COLUMN: &[Field] = &[
    (1, "name", FieldType::Text),
    (2, "type", FieldType::Text),
    (3, "format", FieldType::Text),
    (4, "description", FieldType::Text),
    (5, "priority", FieldType::Count),
    (6, "jsonPath", FieldType::Text),
];
static VALIDATION: &[Field] = &[(1, "openAPIV3Schema", FieldType::Message(&SCHEMA))];
/// Without `dependencies` (32), which the API server refuses in every CRD.
static SCHEMA: [Field; 43] = [
    (1, "id", FieldType::Text),
    (2, "$schema", FieldType::Text),
    (3, "$ref", FieldType::Text),
    (4, "description", FieldType::Text),
    (5, "type", FieldType::Text),
    (6, "format", FieldType::Text),
    (7, "title", FieldType::Text),
    (8, "default", FieldType::Json),
    (9, "maximum", FieldType::Double),
    (10, "exclusiveMaximum", FieldType::Flag),
    (11, "minimum", FieldType::Double),
    (12, "exclusiveMinimum", FieldType::Flag),
    (13, "maxLength", FieldType::Int),
    (14, "minLength", FieldType::Int),
    (15, "pattern", FieldType::Text),
    (16, "maxItems", FieldType::Int),
    (17, "minItems", FieldType::Int),
    (18, "uniqueItems", FieldType::Flag),
    (19, "multipleOf", FieldType::Double),
    (20, "enum", FieldType::Jsons),
    (21, "maxProperties", FieldType::Int),
    (22, "minProperties", FieldType::Int),
    (23, "required", FieldType::Texts),
    (24, "items", FieldType::OneOf(SCHEMA_OR_ARRAY)),
    (25, "allOf", FieldType::Messages(&SCHEMA)),
    (26, "oneOf", FieldType::Messages(&SCHEMA)),
    (27, "anyOf", FieldType::Messages(&SCHEMA)),
    (28, "not", FieldType::Message(&SCHEMA)),
    (29, "properties", FieldType::MessageMap(&SCHEMA)),
    (30, "additionalProperties", FieldType::OneOf(SCHEMA_OR_BOOL)),
    (31, "patternProperties", FieldType::MessageMap(&SCHEMA)),
    (33, "additionalItems", FieldType::OneOf(SCHEMA_OR_BOOL)),
    (34, "definitions", FieldType::MessageMap(&SCHEMA)),
    (35, "externalDocs", FieldType::Message(DOCUMENTATION)),
    (36, "example", FieldType::Json),
    (37, "nullable", FieldType::Flag),
    (38, "x-kubernetes-preserve-unknown-fields", FieldType::Bool),
    (39, "x-kubernetes-embedded-resource", FieldType::Flag),
    (40, "x-kubernetes-int-or-string", FieldType::Flag),
    (41, "x-kubernetes-list-map-keys", FieldType::Texts),
    (42, "x-kubernetes-list-type", FieldType::Text),
    (43, "x-kubernetes-map-type", FieldType::Text),
    (44, "x-kubernetes-validations", FieldType::Messages(RULE)),
];
static DOCUMENTATION: &[Field] = &[(1, "description", FieldType::Text), (2, "url", FieldType::Text)];
static RULE: &[Field] = &[
    (1, "rule", FieldType::Text),
    (2, "message", FieldType::Text),
    (3, "messageExpression", FieldType::Text),
    (4, "reason", FieldType::Text),
    (5, "fieldPath", FieldType::Text),
    (6, "optionalOldSelf", FieldType::Bool),
];
/// A schema counts before a Boolean, as in Go.
static SCHEMA_OR_BOOL: &[Field] = &[
    (2, "schema", FieldType::Message(&SCHEMA)),
    (1, "allows", FieldType::Bool),
];
static SCHEMA_OR_ARRAY: &[Field] = &[
    (2, "schemas", FieldType::Messages(&SCHEMA)),
    (1, "schema", FieldType::Message(&SCHEMA)),
];
