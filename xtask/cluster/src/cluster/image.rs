//! Container images of a few static programs, without a container engine: an OCI image layout in a tar archive.
//!
//! Source: the OCI Image Format Specification, <https://github.com/opencontainers/image-spec>.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tools::hex;

/// A file of an image.
pub(super) enum Entry<'a> {
    /// A program at this path.
    Program(&'a str, &'a Path),
    /// A link at the first path to the second.
    Link(&'a str, &'a str),
    /// A directory that everybody may write to.
    Scratch(&'a str),
}

/// An image of these files as an archive that `ctr images import` reads. The same files give the same bytes.
///
/// # Errors
/// When a program cannot be read.
pub(super) fn archive(reference: &str, entries: &[Entry<'_>], entrypoint: &[&str]) -> anyhow::Result<Vec<u8>> {
    let layer = layer(entries)?;
    let diff_id = digest(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut of_manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    of_manifest["annotations"] = json!({"io.containerd.image.name": reference});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [of_manifest],
    }))?;

    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut archive, "index.json", &index, 0o644)?;
    for blob in [&manifest, &config, &layer] {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        append(&mut archive, &path, blob, 0o644)?;
    }
    Ok(archive.into_inner()?)
}

fn layer(entries: &[Entry<'_>]) -> anyhow::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::Program(path, source) => {
                let content = fs::read(source).with_context(|| format!("{} cannot be read", source.display()))?;
                append(&mut layer, path, &content, 0o755)?;
            }
            Entry::Link(path, target) => {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                layer.append_link(&mut header, path, target)?;
            }
            Entry::Scratch(path) => {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                header.set_mode(0o1777);
                layer.append_data(&mut header, path, std::io::empty())?;
            }
        }
    }
    Ok(layer.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, content)?;
    Ok(())
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

/// This machine's architecture in Go's words, which the specification uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
