//! The rules of the CRDs accept exactly the git addresses that the parser accepts.

use legion_protocol::git_address;
use serde_json::{Value, json};

fn accepted(object: &Value) -> bool {
    legion_api::validate::object(object, None).is_empty()
}

fn connection(uri: &str) -> Value {
    json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection", "metadata": {"name": "code"},
        "spec": {"type": "git", "uri": uri},
    })
}

fn training(uri: &str) -> Value {
    json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": "wine"},
        "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"git": {"uri": uri}}},
    })
}

#[test]
fn the_crds_accept_the_addresses_that_the_parser_accepts() {
    for (uri, valid) in [
        ("https://e.org/x.git", true),
        ("https://e.org:8443/a/b", true),
        ("ssh://e.org/x.git", true),
        ("ssh://git@e.org:2222/x.git", true),
        ("git@e.org:x.git", true),
        ("file:///srv/x.git", true),
        ("http://e.org/x.git", false),
        ("git://e.org/x.git", false),
        ("ext::sh -c true", false),
        ("https://token@e.org/x.git", false),
        ("https://me:password@e.org/x.git", false),
        ("ssh://me:password@e.org/x.git", false),
        ("ssh://@e.org/x.git", false),
        ("ssh://a@b@e.org/x.git", false),
        ("ssh://-oProxyCommand=x/y", false),
        ("ssh://git@-oProxyCommand=x/y", false),
        ("https://-e.org/x.git", false),
        ("https://e.org", false),
        ("https://e.org/", false),
        ("https:///x.git", false),
        ("ssh://git@/x.git", false),
        ("file://srv/x.git", false),
        ("file:///", false),
        ("-git@e.org:x.git", false),
        ("git@-e.org:x.git", false),
        ("git@e.org:", false),
        ("e.org:x.git", false),
        ("/srv/x.git", false),
        ("--upload-pack=x", false),
        ("https://e.org/a b", false),
        ("https://e org/x.git", false),
    ] {
        assert_eq!(git_address::parse(uri).is_ok(), valid, "the parser, {uri}");
        assert_eq!(accepted(&connection(uri)), valid, "the CRD of connections, {uri}");
        // A repository without a connection is public, so it has no ssh key for the short form of ssh.
        let valid = valid && uri.contains("://");
        assert_eq!(accepted(&training(uri)), valid, "the CRD of trainings, {uri}");
    }
}
