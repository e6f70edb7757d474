//! The differences between kube-embed and Kubernetes with their reasons, and the page that lists them.

use std::fmt::Write as _;

/// Cases with a difference for the same reason.
pub(crate) struct Difference {
    /// The reason, for readers of the page.
    pub(crate) reason: &'static str,
    /// Titles of cases.
    pub(crate) cases: &'static [&'static str],
}

/// All differences. A listed case must differ, and any other case must not.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "Parser errors have another parser's wording. Code and reason are the same",
        cases: &[
            "an object without a kind or version is refused",
            "a body that is not JSON is refused",
            "an empty body is refused",
            "a key of a ConfigMap must be a file name",
            "an invalid JSON patch",
            "an invalid merge patch",
            "apply of a body that is not an object is refused",
            "an invalid continue token",
            "leases are updated with their resourceVersion",
        ],
    },
    Difference {
        reason: "A value of the wrong type is reported by the schema, with its path, and not by Go's decoder",
        cases: &[
            "a value of the wrong type is refused",
            "values of the wrong type",
            "numbers and their limits",
            "a write of the object does not change its status",
        ],
    },
    Difference {
        reason: "There is no etcd, so messages contain no etcd keys",
        cases: &["an update with another uid is refused"],
    },
    Difference {
        reason: "Each cause is reported once",
        cases: &[
            "a merge patch with a uid is a precondition",
            "scale of an object without replicas",
        ],
    },
    Difference {
        reason: "An unknown directive of a strategic merge patch is always refused",
        cases: &["a strategic merge patch with directives"],
    },
    Difference {
        reason: "Outside of the metadata, an empty map or list is stored as it was written",
        cases: &["a field that two managers apply with the same value has two owners"],
    },
    Difference {
        reason: "In an apply, null for a field that is not nullable means that the field is absent",
        cases: &["null is applied as a value"],
    },
    Difference {
        reason: "Items of lists contain their kind, because an object is serialized once for all kinds of reads",
        cases: &["items of a list have no apiVersion and kind"],
    },
    Difference {
        reason: "No admission plugin changes pods: no service account with its token, no tolerations, no priority",
        cases: &["pods by phase and node"],
    },
    Difference {
        reason: "Columns of built-in kinds have no descriptions. kubectl does not show them",
        cases: &["columns of a table are described"],
    },
    Difference {
        reason: "Empty fields are absent, even where Go writes them",
        cases: &[
            "an event is created and counted",
            "an event of the core API is served by events.k8s.io",
            "an event of events.k8s.io is served by the core API",
        ],
    },
    Difference {
        reason: "A duplicate key in a JSON body is not detected. The last one counts",
        cases: &["a duplicate key"],
    },
    Difference {
        reason: "Fields of an object are sorted by name in warnings and values",
        cases: &["unknown fields are pruned", "an object has one controller"],
    },
    Difference {
        reason: "Metadata of custom objects is validated as metadata and again by the schema. Finalizers without a slash give no warning",
        cases: &[
            "an owner reference requires all fields",
            "a finalizer needs a name with a slash",
        ],
    },
    Difference {
        reason: "A CRD is already established in the response to its creation",
        cases: &["deletion of a CRD deletes its objects, and waits for their finalizers"],
    },
    Difference {
        reason: "Errors for CRDs name the invalid version, and have other wording",
        cases: &[
            "invalid CRDs are refused",
            "rules that do not compile are refused",
            "names of another CRD are not accepted",
        ],
    },
    Difference {
        reason: "The cost of CEL rules is not estimated",
        cases: &["rules that are too expensive are refused"],
    },
    Difference {
        reason: "A negative number of replicas is reported once, by the schema",
        cases: &["scale reads and writes replicas"],
    },
    Difference {
        reason: "A path that a kind does not have is not found, whatever the method",
        cases: &[
            "a kind without the status subresource has no status path",
            "methods that are not allowed",
            "unknown paths",
        ],
    },
    Difference {
        reason: "Pods are validated less: not quantities, requests above limits, or types of conditions",
        cases: &[
            "requests above limits are refused",
            "pods have a QoS class",
            "invalid pods are refused",
            "most fields of a pod's spec are immutable",
            "the status of a pod is written through its subresource",
            "a pod is bound once",
            "a pod without a node is deleted immediately",
        ],
    },
    Difference {
        reason: "There is no OpenAPI v2, and a missing document is answered like any unknown path",
        cases: &["OpenAPI documents"],
    },
    Difference {
        reason: "Deployments are stored for clients that write them. They are validated little, and no controller rolls them out",
        cases: &["Deployments are stored"],
    },
    Difference {
        reason: "Answers are in JSON only",
        cases: &["unsupported media types", "YAML responses"],
    },
    Difference {
        reason: "A namespace that is being deleted has no conditions",
        cases: &["a terminating namespace reports what it waits for"],
    },
    Difference {
        reason: "Conditions and container statuses have another order",
        cases: &[
            "conditions of a pod that succeeded",
            "a running pod",
            "two containers, one of which fails",
        ],
    },
    Difference {
        reason: "Some messages of the node and the scheduler have other wording",
        cases: &[
            "a missing image",
            "a missing hostPath with a type",
            "a pod that fits no node",
        ],
    },
    Difference {
        reason: "A missing hostPath without a type is not created. Use DirectoryOrCreate",
        cases: &["a hostPath without a type is not checked"],
    },
    Difference {
        reason: "Claims are bound immediately, and have fewer columns",
        cases: &["a table of claims"],
    },
];

/// The differences in kubectl's output. The page lists only their cases, because it is generated without kubectl.
pub(crate) const KUBECTL_DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "`kubectl create deployment` sends protobuf, and this server cannot decode a Deployment from it. `kubectl create -f` works",
        cases: &["kubectl create deployment"],
    },
    Difference {
        reason: "No controller rolls out Deployments, so `kubectl rollout status` waits forever",
        cases: &["kubectl rollout status"],
    },
];

/// A step with two different answers.
pub(crate) struct Differing {
    pub(crate) case: String,
    pub(crate) request: String,
    pub(crate) real: Vec<String>,
    pub(crate) embed: Vec<String>,
}

/// Returns the page in Markdown.
pub(crate) fn page(cases: usize, differing: &[Differing]) -> String {
    let mut out = format!(
        "<!-- Generated by `UPDATE=1 cargo test -p kube-embed --test conformance`; do not edit. -->\n\
         # Where kube-embed differs from Kubernetes 1.37\n\n\
         The conformance suite (`crates/kube-embed/tests/conformance`) runs the same {cases} cases against both servers. This\n\
         page lists the answers that differ, with the reason. `<...>` stands for values that change from run to run, and\n\
         `NS` for the namespace of a case. [The README](../../crates/kube-embed/README.md) lists what kube-embed does not have.\n\n\
         The suite also runs random histories of creations, updates, patches, applies, deletions, lists and watches against both\n\
         servers. For errors it compares code and reason, but not the message. It treats empty and absent fields as equal, and\n\
         never applies null.\n"
    );
    for difference in DIFFERENCES {
        let _ = write!(out, "\n## {}\n", difference.reason);
        for case in difference.cases {
            let _ = write!(out, "\n**{case}**\n\n");
            for step in differing.iter().filter(|d| d.case == *case) {
                let _ = writeln!(out, "```text\n{}", step.request);
                write_side(&mut out, "Kubernetes", &step.real);
                write_side(&mut out, "kube-embed", &step.embed);
                out.push_str("```\n");
            }
        }
    }
    out.push_str("\n## Under kubectl\n\n");
    for difference in KUBECTL_DIFFERENCES {
        let _ = writeln!(out, "- {} ({})", difference.reason, difference.cases.join(", "));
    }
    out
}

fn write_side(out: &mut String, who: &str, lines: &[String]) {
    let _ = writeln!(
        out,
        "{who}: {}",
        if lines.is_empty() { "nothing" } else { "" }.trim_end()
    );
    for line in lines {
        let _ = writeln!(out, "    {line}");
    }
}
