//! `cargo xtask image`: builds the images with Buildah, without an engine or a daemon. It prints their sizes and holds
//! them to their bounds.
//!
//! The recipes are plain Containerfiles with one argument, the base. Here debootstrap makes the base from the machine's
//! own Debian mirror, so that no registry is needed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through them"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::cluster::{
    Place,
    layout::{ADDRESS, REGISTRY_PORT},
    tools,
};

/// The base of every image: what Debian calls it.
const SUITE: &str = "bookworm";
/// Every image's name begins with it, as in the manifests of `toolchains/`.
const PREFIX: &str = "legion-platform";

/// An image of ours.
struct Image {
    name: &'static str,
    /// Where its Containerfile lies.
    recipe: &'static str,
    /// Programs of the release build that it is made of; where there are none, the recipe's directory is the context.
    programs: &'static [&'static str],
    /// How large it may be, compressed, in MiB.
    bound: Option<u64>,
}

const IMAGES: [Image; 4] = [
    Image {
        name: "control-plane",
        recipe: "images/control-plane",
        programs: &["legion-operator"],
        bound: Some(25),
    },
    Image {
        name: "agent",
        recipe: "images/agent",
        programs: &["legion-agent", "legion-entry"],
        bound: None,
    },
    Image {
        name: "toolchain-mlflow",
        recipe: "toolchains/mlflow",
        programs: &[],
        bound: None,
    },
    Image {
        name: "toolchain-script",
        recipe: "toolchains/script",
        programs: &[],
        bound: None,
    },
];

/// What to build.
#[derive(Debug, Args)]
pub struct Options {
    /// Also pushes them to the registry of the cluster that `cargo xtask cluster up` started.
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    place: Place,
    /// Cargo's profile for the programs: with `dev` the images are large and soon built.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Build this image only; may be given several times.
    #[arg(long, value_name = "IMAGE", value_parser = IMAGES.map(|image| image.name))]
    only: Vec<String>,
}

/// Builds them.
///
/// # Errors
/// When a tool is missing or a build fails; the message says which.
pub fn run(repository: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let chosen: Vec<&Image> = IMAGES
        .iter()
        .filter(|image| options.only.is_empty() || options.only.iter().any(|name| name == image.name))
        .collect();
    check_prerequisites()?;
    let programs: Vec<&str> = chosen.iter().flat_map(|image| image.programs).copied().collect();
    compile(repository, &options.profile, &programs)?;
    let built = built(repository, &options.profile);
    let base = base()?;
    let mut failed = false;
    println!("{:>12}  {:>12}  {:>8}  image", "compressed", "unpacked", "seconds");
    for image in chosen {
        let began = Instant::now();
        let reference = format!("{PREFIX}/{}:{version}", image.name);
        image.build(repository, &built, &base, &reference)?;
        let packed = Packed::new(&reference)?;
        println!(
            "{:>8.1} MiB  {:>8.1} MiB  {:>8.1}  {reference}",
            mebibytes(packed.compressed),
            mebibytes(packed.unpacked),
            began.elapsed().as_secs_f64()
        );
        if let Some(bound) = image.bound.filter(|bound| packed.compressed > bound * 1024 * 1024) {
            println!("{reference} is larger than its bound of {bound} MiB");
            failed = true;
        }
        if options.load {
            packed.push(repository, &options.place, &reference)?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check_prerequisites() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "images are built as root here; elsewhere any builder does: docker build --file images/agent/Containerfile target/release"
        );
    }
    for (program, package) in [
        ("buildah", "buildah"),
        ("debootstrap", "debootstrap"),
        ("skopeo", "skopeo"),
    ] {
        crate::cluster::need(program, package)?;
    }
    Ok(())
}

/// Where cargo puts the programs.
fn built(repository: &Path, profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    target.join(if profile == "dev" { "debug" } else { profile })
}

fn compile(repository: &Path, profile: &str, programs: &[&str]) -> anyhow::Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(repository)
        .args(["build", "--quiet", "--profile", profile]);
    if profile == "dev" {
        // As the tests build them: alone they have fewer features, and everything would be compiled a second time.
        command.args(["--workspace", "--bins"]);
    } else {
        command.args(programs.iter().flat_map(|program| ["--package", program]));
    }
    succeed(&mut command)
}

/// The base image, made unless it is there already.
fn base() -> anyhow::Result<String> {
    let reference = format!("localhost/legion-base:{SUITE}");
    if buildah(&["inspect", "--type", "image", &reference])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success()
    {
        return Ok(reference);
    }
    let began = Instant::now();
    eprintln!("making the base image with debootstrap");
    let root = tools::cache()?.join(format!("{SUITE}.partial"));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", SUITE]).arg(&root).arg(mirror()?);
    command.stdout(Stdio::null());
    succeed(&mut command)?;
    // What the package manager needs only while it works.
    for path in ["var/cache/apt", "var/lib/apt/lists", "var/log"] {
        let path = root.join(path);
        fs::remove_dir_all(&path)?;
        fs::create_dir_all(&path)?;
    }
    let container = text(&mut buildah(&["from", "scratch"]))?;
    let done = succeed(
        buildah(&["add", "--quiet", &container])
            .arg(&root)
            .arg("/")
            .stdout(Stdio::null()),
    )
    .and_then(|()| succeed(buildah(&["config", "--cmd", "/bin/sh", &container]).stdout(Stdio::null())))
    .and_then(|()| succeed(&mut buildah(&["commit", "--quiet", &container, &reference])));
    succeed(buildah(&["rm", &container]).stdout(Stdio::null()))?;
    fs::remove_dir_all(&root)?;
    done?;
    eprintln!("made the base image in {} s", began.elapsed().as_secs());
    Ok(reference)
}

/// The Debian mirror that this machine installs from.
fn mirror() -> anyhow::Result<String> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
    ]);
    let listed = text(&mut command).unwrap_or_default();
    let main = listed.lines().find(|uri| !uri.contains("security"));
    Ok(main.unwrap_or("http://deb.debian.org/debian").to_owned())
}

impl Image {
    fn build(&self, repository: &Path, built: &Path, base: &str, reference: &str) -> anyhow::Result<()> {
        let recipe = repository.join(self.recipe);
        let context = if self.programs.is_empty() {
            recipe.clone()
        } else {
            // A directory of its own: the builder copies all of a context.
            let context = built.join("images").join(self.name);
            fs::create_dir_all(&context)?;
            for program in self.programs {
                let copy = context.join(program);
                fs::copy(built.join(program), &copy).with_context(|| format!("{program} cannot be copied"))?;
                // A release has no symbols already; those of a development build are half of it.
                succeed(Command::new("strip").arg(&copy))?;
            }
            context
        };
        let mut command = buildah(&["build", "--quiet", "--layers", "--isolation", "chroot", "--build-arg"]);
        command.arg(format!("BASE={base}")).args(["--tag", reference]);
        // How this machine reaches its package registries does not become part of the image.
        let settings = tempfile::tempdir()?;
        let pip = settings.path().join("pip.conf");
        fs::write(&pip, pip_settings())?;
        command
            .arg("--volume")
            .arg(format!("{}:/etc/pip.conf:ro", pip.display()));
        if Path::new(CERTIFICATES).exists() {
            command
                .arg("--volume")
                .arg(format!("{CERTIFICATES}:{CERTIFICATES_INSIDE}:ro"));
        }
        command.arg("--file").arg(recipe.join("Containerfile")).arg(&context);
        succeed(command.stdout(Stdio::null())).with_context(|| format!("the image {reference}"))
    }
}

/// The authorities that this machine trusts, and where a build finds them. Their usual place belongs to a package.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CERTIFICATES_INSIDE: &str = "/run/legion-build/ca-certificates.crt";

/// This machine's settings of pip, with its certificates where a build finds them.
fn pip_settings() -> String {
    let own = fs::read_to_string("/etc/pip.conf").unwrap_or_default();
    let kept = own.lines().filter(|line| {
        let line = line.trim();
        // A section may stand in the file once.
        !line.starts_with("cert") && line != "[global]"
    });
    let mut settings = vec!["[global]".to_owned()];
    settings.extend(kept.map(str::to_owned));
    if let Some(index) = std::env::var("PIP_INDEX_URL").ok().filter(|url| !url.is_empty()) {
        settings.push(format!("index-url = {index}"));
    }
    if Path::new(CERTIFICATES).exists() {
        settings.push(format!("cert = {CERTIFICATES_INSIDE}"));
    }
    settings.join("\n") + "\n"
}

/// An image as a registry stores it.
struct Packed {
    directory: tempfile::TempDir,
    compressed: u64,
    /// What it takes on a node.
    unpacked: u64,
}

impl Packed {
    fn new(reference: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let target = format!("dir:{}", directory.path().display());
        succeed(
            buildah(&["push", "--quiet", "--compression-format", "gzip", reference, &target]).stdout(Stdio::null()),
        )?;
        let manifest: Value = serde_json::from_slice(&fs::read(directory.path().join("manifest.json"))?)?;
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let compressed = layers.filter_map(|layer| layer["size"].as_u64()).sum();
        let listed: Value = serde_json::from_str(&text(&mut buildah(&["images", "--json", reference]))?)?;
        let unpacked = listed[0]["size"].as_str().map(unpacked_size).unwrap_or_default();
        Ok(Self {
            directory,
            compressed,
            unpacked,
        })
    }

    /// Pushes it to the cluster's registry, from inside of its network; it is not compressed a second time.
    fn push(&self, repository: &Path, place: &Place, reference: &str) -> anyhow::Result<()> {
        let layout = place.layout(repository)?;
        if !layout.state()?.is_some_and(|state| state.ready && state.node) {
            bail!(
                "there is no cluster with a registry in {}: cargo xtask cluster up",
                layout.root().display()
            );
        }
        let mut command = crate::cluster::enter(&layout, "skopeo".as_ref());
        command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        command.arg(format!("dir:{}", self.directory.path().display()));
        command.arg(format!("docker://{ADDRESS}:{REGISTRY_PORT}/{reference}"));
        succeed(command.stdout(Stdio::null()))
    }
}

/// "12.3 MB" as Buildah writes it, in bytes.
fn unpacked_size(text: &str) -> u64 {
    let mut words = text.split_whitespace();
    let number: f64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let unit = match words.next() {
        Some("KB") => 1e3,
        Some("MB") => 1e6,
        Some("GB") => 1e9,
        _ => 1.0,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size, rounded by who printed it"
    )]
    let bytes = (number * unit) as u64;
    bytes
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn buildah(arguments: &[&str]) -> Command {
    let mut command = Command::new("buildah");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("{shown} cannot be started"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

fn text(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{shown} cannot be started"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
