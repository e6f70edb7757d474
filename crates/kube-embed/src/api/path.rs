//! Parses request paths.

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Health,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources {
        group: String,
        version: String,
    },
    /// `/openapi/v3`
    OpenApiRoot,
    /// `/openapi/v3/…`
    OpenApi {
        group: String,
        version: String,
    },
    Object(Target),
    Unknown,
}

/// A resource, an object or a subresource of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    /// Whether the path is one of the deprecated `watch` paths.
    pub(super) watch: bool,
}

pub(super) fn parse(path: &str) -> Route {
    // An escaped slash counts as a slash, as in Kubernetes.
    let path = decode(path);
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["version"] => Route::Version,
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).into()),
        ["api", version] => Route::Resources {
            group: String::new(),
            version: (*version).into(),
        },
        ["apis", group, version] => Route::Resources {
            group: (*group).into(),
            version: (*version).into(),
        },
        ["openapi", "v3"] => Route::OpenApiRoot,
        ["openapi", "v3", "api", version] => Route::OpenApi {
            group: String::new(),
            version: (*version).into(),
        },
        ["openapi", "v3", "apis", group, version] => Route::OpenApi {
            group: (*group).into(),
            version: (*version).into(),
        },
        ["api", version, "watch", rest @ ..] => watched(target("", version, rest)),
        ["apis", group, version, "watch", rest @ ..] => watched(target(group, version, rest)),
        ["api", version, rest @ ..] => target("", version, rest),
        ["apis", group, version, rest @ ..] => target(group, version, rest),
        _ => Route::Unknown,
    }
}

fn watched(route: Route) -> Route {
    match route {
        Route::Object(target) => Route::Object(Target { watch: true, ..target }),
        other => other,
    }
}

fn target(group: &str, version: &str, rest: &[&str]) -> Route {
    let owned = |s: &&str| Some((*s).to_owned());
    let (namespace, plural, name, subresource) = match rest {
        // Namespaces are also objects: `namespaces/NAME` and `namespaces/NAME/status`.
        ["namespaces"] => (None, "namespaces", None, None),
        ["namespaces", name] => (None, "namespaces", owned(name), None),
        ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
            (None, "namespaces", owned(name), owned(sub))
        }
        ["namespaces", namespace, plural] => (owned(namespace), *plural, None, None),
        ["namespaces", namespace, plural, name] => (owned(namespace), *plural, owned(name), None),
        ["namespaces", namespace, plural, name, sub] => (owned(namespace), *plural, owned(name), owned(sub)),
        [plural] => (None, *plural, None, None),
        [plural, name] => (None, *plural, owned(name), None),
        [plural, name, sub] => (None, *plural, owned(name), owned(sub)),
        _ => return Route::Unknown,
    };
    Route::Object(Target {
        group: group.into(),
        version: version.into(),
        namespace,
        plural: plural.into(),
        name,
        subresource,
        watch: false,
    })
}

/// Decodes `%XX`. An invalid sequence stays as it is and matches nothing.
fn decode(segment: &str) -> String {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |b: &u8| char::from(*b).to_digit(16).unwrap_or_default() as u8;
                out.push(digit(high) << 4 | digit(low));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let object = |group: &str,
                      version: &str,
                      namespace: Option<&str>,
                      plural: &str,
                      name: Option<&str>,
                      sub: Option<&str>| {
            Route::Object(Target {
                group: group.into(),
                version: version.into(),
                namespace: namespace.map(Into::into),
                plural: plural.into(),
                name: name.map(Into::into),
                subresource: sub.map(Into::into),
                watch: false,
            })
        };
        for (path, want) in [
            ("/apis", Route::Groups),
            (
                "/api/v1/",
                Route::Resources {
                    group: "".into(),
                    version: "v1".into(),
                },
            ),
            ("/api/v1/namespaces", object("", "v1", None, "namespaces", None, None)),
            (
                "/api/v1/namespaces/a",
                object("", "v1", None, "namespaces", Some("a"), None),
            ),
            (
                "/api/v1/namespaces/a/finalize",
                object("", "v1", None, "namespaces", Some("a"), Some("finalize")),
            ),
            (
                "/api/v1/namespaces/a/pods",
                object("", "v1", Some("a"), "pods", None, None),
            ),
            (
                "/api/v1/namespaces/a/pods/b/log",
                object("", "v1", Some("a"), "pods", Some("b"), Some("log")),
            ),
            (
                "/apis/g.io/v1/things/a%3Ab/status",
                object("g.io", "v1", None, "things", Some("a:b"), Some("status")),
            ),
            (
                "/apis/g.io/v1/namespaces/a/things",
                object("g.io", "v1", Some("a"), "things", None, None),
            ),
            ("/nonsense", Route::Unknown),
            ("/api/v1/namespaces/a/pods/b/c/d", Route::Unknown),
        ] {
            assert_eq!(parse(path), want, "{path}");
        }
    }
}
