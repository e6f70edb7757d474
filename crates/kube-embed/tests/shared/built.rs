//! The real kubectl, for both test programs of this crate.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Returns the path of the pinned kubectl. Builds it if it is not in the cache, which needs Go.
pub(crate) async fn kubectl() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["xtask", "cluster", "tool", "kubectl"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert!(built.status.success(), "kubectl could not be built");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
}
