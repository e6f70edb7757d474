//! `cargo xtask image`: builds the images with Buildah, without an engine or a daemon. It prints their sizes and holds
//! them to their bounds.
//!
//! The recipes are plain Containerfiles with one argument, the base. Here debootstrap creates the base from the
//! machine's Debian mirror, so that no registry is needed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool reports on stdout and stderr"
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

/// The Debian release of the base image.
const SUITE: &str = "bookworm";
/// The repository of every image, as in the manifests of `toolchains/`.
const PREFIX: &str = "legion-platform";

/// An image of this repository.
struct Image {
    name: &'static str,
    /// The directory of its Containerfile.
    recipe: &'static str,
    /// The programs of the release build that it contains. Without any, the recipe's directory is the context.
    programs: &'static [&'static str],
    /// The maximum compressed size, in MiB.
    bound: Option<u64>,
    /// Whether its Python can list its largest packages.
    has_python: bool,
}

const IMAGES: [Image; 4] = [
    Image {
        name: "control-plane",
        recipe: "images/control-plane",
        programs: &["legion-operator"],
        bound: Some(25),
        has_python: false,
    },
    Image {
        name: "agent",
        recipe: "images/agent",
        programs: &["legion-agent", "legion-entry"],
        bound: Some(30),
        has_python: false,
    },
    Image {
        name: "toolchain-mlflow",
        recipe: "toolchains/mlflow",
        programs: &[],
        bound: None,
        has_python: true,
    },
    Image {
        name: "toolchain-script",
        recipe: "toolchains/script",
        programs: &[],
        bound: None,
        has_python: false,
    },
];

/// What to build.
#[derive(Debug, Args)]
pub struct Options {
    /// Also pushes the images to the registry of the cluster of `cargo xtask cluster up`.
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    place: Place,
    /// Cargo's profile for the programs. With `dev` the images are large, and built sooner.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Builds this image only. Can be repeated.
    #[arg(long, value_name = "IMAGE", value_parser = IMAGES.map(|image| image.name))]
    only: Vec<String>,
}

/// Builds the images and prints their sizes.
///
/// # Errors
/// When a build fails.
pub fn run(repository: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let chosen: Vec<&Image> = IMAGES
        .iter()
        .filter(|image| options.only.is_empty() || options.only.iter().any(|name| name == image.name))
        .collect();
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
        if image.has_python {
            println!("{:>12}  the ten largest packages of {reference}", "unpacked");
            for (bytes, package) in largest_packages(&reference)? {
                println!("{:>8.1} MiB  {package}", mebibytes(bytes));
            }
        }
        if options.load {
            packed.push(repository, &options.place, &reference)?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the directory of cargo's built programs.
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
        // As the tests build them. Alone they have fewer features, and everything would be compiled a second time.
        command.args(["--workspace", "--bins"]);
    } else {
        command.args(programs.iter().flat_map(|program| ["--package", program]));
    }
    succeed(&mut command)
}

/// Returns the base image, and creates it if it does not exist.
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
    eprintln!("creating the base image with debootstrap");
    let root = tools::cache()?.join(format!("{SUITE}.partial"));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", SUITE]).arg(&root).arg(mirror()?);
    command.stdout(Stdio::null());
    succeed(&mut command)?;
    // The package manager needs them only during the installation.
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
    .and_then(|()| succeed(buildah(&["commit", "--quiet", &container, &reference]).stdout(Stdio::null())));
    succeed(buildah(&["rm", &container]).stdout(Stdio::null()))?;
    fs::remove_dir_all(&root)?;
    done?;
    eprintln!("created the base image in {} s", began.elapsed().as_secs());
    Ok(reference)
}

/// Returns the Debian mirror of this machine.
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
            // In a directory of its own, because the builder copies the whole context.
            let context = built.join("images").join(self.name);
            fs::create_dir_all(&context)?;
            for program in self.programs {
                let copy = context.join(program);
                fs::copy(built.join(program), &copy).with_context(|| format!("{program} cannot be copied"))?;
                // A release has no symbols. Those of a development build are half of its size.
                succeed(Command::new("strip").arg(&copy))?;
            }
            context
        };
        let mut command = buildah(&["build", "--quiet", "--layers", "--isolation", "chroot", "--build-arg"]);
        command.arg(format!("BASE={base}")).args(["--tag", reference]);
        // The machine's package registries do not become part of the image.
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
        // pip and apt-get write into the table of sizes otherwise.
        let output = command.output().context("buildah cannot be started")?;
        if !output.status.success() {
            bail!(
                "the image {reference} cannot be built: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

/// Lists the largest packages. It runs in the image.
const PACKAGES: &str = include_str!("packages.py");

/// The machine's certificate authorities, and their path in a build. A package owns their usual path.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CERTIFICATES_INSIDE: &str = "/run/legion-build/ca-certificates.crt";

/// Returns this machine's settings of pip, with the path of the certificates in a build.
fn pip_settings() -> String {
    let own = fs::read_to_string("/etc/pip.conf").unwrap_or_default();
    let kept = own.lines().filter(|line| {
        let line = line.trim();
        // A file has each section once.
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
    /// Size on a node, in bytes.
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

    /// Pushes the image to the cluster's registry, from inside the cluster's network. It is not compressed again.
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

/// Returns the ten largest packages of an image with Python, largest first: unpacked bytes, name and version.
fn largest_packages(reference: &str) -> anyhow::Result<Vec<(u64, String)>> {
    let container = text(&mut buildah(&["from", reference]))?;
    let listed = text(&mut buildah(&[
        "run",
        "--isolation",
        "chroot",
        &container,
        "--",
        "python",
        "-c",
        PACKAGES,
    ]));
    succeed(buildah(&["rm", &container]).stdout(Stdio::null()))?;
    listed?
        .lines()
        .map(|line| {
            let (bytes, package) = line.split_once(' ').context("a package has no size")?;
            Ok((bytes.parse()?, package.to_owned()))
        })
        .collect()
}

/// Returns a size such as "12.3 MB", in Buildah's form, in bytes.
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
        reason = "Buildah has rounded the size"
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
