//! What kube-embed answers in another way, and why; and the page that lists it.

use std::fmt::Write as _;

/// Cases that differ for one reason.
pub(crate) struct Difference {
    /// Why it stays, for readers of the page.
    pub(crate) reason: &'static str,
    /// Titles of cases.
    pub(crate) cases: &'static [&'static str],
}

/// All that differs. A case that is not listed must not differ, and a listed one must.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "What a parser says is in the words of another parser; code and reason are the same",
        cases: &[
            "an object without a kind or version is refused",
            "a body that is no JSON is refused",
            "an empty body is refused",
            "a key of a ConfigMap must be a file name",
            "a JSON patch that is none",
            "a merge patch that is none",
            "apply of something that is no object is refused",
            "a continue token that is none",
            "leases are taken with their version",
        ],
    },
    Difference {
        reason: "A value of the wrong type is told by its path, as the schema finds it, and not as Go's decoder does",
        cases: &[
            "a value of the wrong type is refused",
            "values of the wrong type",
            "numbers and their limits",
            "status is not written with the rest",
        ],
    },
    Difference {
        reason: "There is no etcd, whose keys a message could tell",
        cases: &["an update with another uid is refused"],
    },
    Difference {
        reason: "A cause is told once",
        cases: &[
            "a merge patch with a uid is a precondition",
            "scale of what has no replicas",
        ],
    },
    Difference {
        reason: "A directive of a strategic merge patch that nobody knows is always refused",
        cases: &["a strategic merge patch with directives"],
    },
    Difference {
        reason: "An empty map or list stays as it was written",
        cases: &[
            "a field that two managers apply alike belongs to both",
            "a finalizer holds an object back",
        ],
    },
    Difference {
        reason: "A null that is applied to a field that cannot be null counts as left out",
        cases: &["null is applied as a value"],
    },
    Difference {
        reason: "Items of lists tell their kind: an object is serialised once, for every way of reading it",
        cases: &["items of a list have no type of their own"],
    },
    Difference {
        reason: "No admission plugin completes pods: no service account with its token, no tolerations, no priority",
        cases: &["pods by phase and node"],
    },
    Difference {
        reason: "Columns of built-in kinds have no descriptions, which kubectl does not show",
        cases: &["columns of a table are described"],
    },
    Difference {
        reason: "What Go writes although it is empty is left out",
        cases: &[
            "an event is created and counted",
            "an event of the old API is one of the new",
            "an event of the new API is one of the old",
        ],
    },
    Difference {
        reason: "A duplicate key in a JSON body is not noticed; the last one counts",
        cases: &["a key given twice"],
    },
    Difference {
        reason: "Fields of an object have no order of their own, in warnings and values they come by name",
        cases: &["unknown fields are pruned", "an object has one controller"],
    },
    Difference {
        reason: "Metadata of custom objects is checked once as metadata and once by the schema, and plain finalizers without a warning",
        cases: &["an owner needs all its fields", "a finalizer needs a name with a slash"],
    },
    Difference {
        reason: "A CRD is established in the answer to its creation",
        cases: &["a CRD takes its objects along, and waits for their finalizers"],
    },
    Difference {
        reason: "Refusals of CRDs name the version at fault, and come in other words",
        cases: &[
            "CRDs that are refused",
            "rules that do not compile are refused",
            "names that are taken are not accepted",
        ],
    },
    Difference {
        reason: "The cost of rules is not estimated",
        cases: &["rules that are too expensive are refused"],
    },
    Difference {
        reason: "A negative number of replicas is told once, by the schema",
        cases: &["scale is a view of replicas"],
    },
    Difference {
        reason: "A path that a kind does not have is not found, whatever it is asked for",
        cases: &[
            "a kind without status has no such path",
            "methods that are not allowed",
            "paths that nothing serves",
        ],
    },
    Difference {
        reason: "Pods are checked less: quantities and requests above limits, and types of conditions",
        cases: &[
            "requests above limits are refused",
            "pods have a quality of service",
            "pods that are refused",
            "most of a pod's spec does not change",
            "status of a pod is written by its path",
            "a pod is bound once",
            "a pod without a node goes at once",
        ],
    },
    Difference {
        reason: "There is no OpenAPI v2, and a document that is not there is told as any path is",
        cases: &["OpenAPI documents"],
    },
    Difference {
        reason: "Deployments are stored for those who write them, and checked little; nothing rolls them out",
        cases: &["deployments are stored"],
    },
    Difference {
        reason: "Answers are in JSON only",
        cases: &["media types that are not spoken", "YAML answers"],
    },
    Difference {
        reason: "A namespace that is being deleted tells no conditions",
        cases: &["a namespace that is deleted says what it waits for"],
    },
    Difference {
        reason: "Conditions and container statuses come in another order",
        cases: &[
            "conditions of a pod that succeeded",
            "a running pod",
            "two containers, one of which fails",
        ],
    },
    Difference {
        reason: "The node and the scheduler say some things in other words",
        cases: &[
            "an image that is not there",
            "a hostPath that must be there",
            "a pod that fits no node",
        ],
    },
    Difference {
        reason: "A hostPath without a type is not made where it is missing; ask for DirectoryOrCreate",
        cases: &["a hostPath without a type is not checked"],
    },
    Difference {
        reason: "Claims are bound at once, and have fewer columns",
        cases: &["a table of claims"],
    },
];

/// What kubectl shows in another way; the page names the cases only, as it is made without kubectl.
pub(crate) const KUBECTL_DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "`kubectl create deployment` sends protobuf, of which no Deployment is read; `kubectl create -f` works",
        cases: &["kubectl create deployment"],
    },
    Difference {
        reason: "No controller rolls Deployments out, so `kubectl rollout status` waits for ever",
        cases: &["kubectl rollout status"],
    },
];

/// A step that was answered in two ways.
pub(crate) struct Differing {
    pub(crate) case: String,
    pub(crate) request: String,
    pub(crate) real: Vec<String>,
    pub(crate) embed: Vec<String>,
}

/// The page.
pub(crate) fn page(cases: usize, differing: &[Differing]) -> String {
    let mut out = format!(
        "<!-- Generated by `UPDATE=1 cargo test -p kube-embed --test conformance`; do not edit. -->\n\
         # Where kube-embed differs from Kubernetes 1.37\n\n\
         The conformance suite (`crates/kube-embed/tests/conformance`) says the same {cases} cases to both servers. These are\n\
         the answers that differ, each with its reason. Values that differ from run to run are shown as `<...>`, the\n\
         namespace of a case as `NS`. What kube-embed leaves out altogether is in [its README](../../crates/kube-embed/README.md).\n\n\
         Random histories of creations, updates, patches, applies, deletions, lists and watches are told to both servers, too. They compare\n\
         code and reason of refusals, not the words, take what is empty for what is not there, and apply no null.\n"
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
