//! Preparation of a container's start: the image's environment and the configuration.

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Context;
use super::environment;
use super::events::InvolvedObject;
use super::images::{Image, ImageEnvironment, human_size};
use super::launch::{Declaration, expand};
use super::quantity;
use super::runtime::Mount;

/// The reason why a container cannot be started now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// No environment exists for its image.
    Image { message: String },
    /// An object that its configuration refers to is missing.
    Config { message: String },
}

/// All input of a start except for the container's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) image_id: String,
    pub(crate) declaration: Declaration,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_limit_milli: Option<u64>,
}

/// Finds the image's environment, creates it if necessary, and reads the container's configuration.
pub(crate) async fn launch(ctx: &Context, pod: &Pod, container: &Container, init: bool) -> Result<Launch, Blocked> {
    let reference = container.image.clone().unwrap_or_default();
    let environment = image(ctx, pod, container, init, &reference).await?;
    let env = environment::build(&ctx.client, pod, container, &environment)
        .await
        .map_err(|message| Blocked::Config { message })?;
    let (command, args) = match (&container.command, &container.args) {
        (Some(command), args) if !command.is_empty() => (command.clone(), args.clone().unwrap_or_default()),
        (_, Some(args)) if !args.is_empty() => (environment.entrypoint.clone(), args.clone()),
        _ => (environment.entrypoint.clone(), environment.cmd.clone()),
    };
    if command.is_empty() && args.is_empty() {
        let message = format!("no command specified: set command, or give the image {reference:?} an entrypoint");
        return Err(Blocked::Config { message });
    }
    let variables = || env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mounts = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| Mount {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
            sub_path: match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) => path.clone(),
                (None, Some(expression)) => expand(expression, &variables()),
                (None, None) => String::new(),
            },
        })
        .collect();
    let limits = container
        .resources
        .as_ref()
        .and_then(|r| r.limits.clone())
        .unwrap_or_default();
    let working_dir = container.working_dir.clone().filter(|dir| !dir.is_empty()).or_else(|| {
        environment
            .working_dir
            .as_ref()
            .map(|dir| dir.to_string_lossy().into_owned())
    });
    Ok(Launch {
        image_id: if environment.id.is_empty() {
            reference
        } else {
            environment.id.clone()
        },
        declaration: Declaration {
            env,
            command,
            args,
            working_dir,
            termination_message_path: container
                .termination_message_path
                .clone()
                .unwrap_or_else(|| "/dev/termination-log".into()),
        },
        mounts,
        memory_limit: limits.get("memory").and_then(quantity::units).filter(|v| *v > 0),
        cpu_limit_milli: limits
            .get("cpu")
            .and_then(quantity::milli)
            .and_then(|v| u64::try_from(v).ok())
            .filter(|v| *v > 0),
    })
}

fn present(reference: &str) -> String {
    format!("Container image {reference:?} already present on machine")
}

async fn image(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    init: bool,
    reference: &str,
) -> Result<ImageEnvironment, Blocked> {
    let about = || InvolvedObject::container(pod, &container.name, init);
    let preparation = match ctx.images.find(reference) {
        Some(Image::Ready(environment)) => {
            ctx.recorder.normal(about(), "Pulled", present(reference));
            return Ok(environment);
        }
        Some(Image::Prepare(preparation)) => preparation,
        None => {
            let remedy = ctx.images.remedy(reference);
            return Err(Blocked::Image {
                message: format!("image {reference:?} not found: {remedy}"),
            });
        }
    };
    ctx.recorder.normal(
        about(),
        "Pulling",
        format!("Checking the environment of image {reference:?}"),
    );
    let began = tokio::time::Instant::now();
    let (progress, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let mut prepared = preparation.prepare(progress).fuse();
    let mut is_created = false;
    let mut report = |step: String| {
        is_created = true;
        ctx.recorder.normal(about(), "Pulling", step);
    };
    let result = loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => report(step),
            result = &mut prepared => break result,
        }
    };
    while let Ok(step) = steps.try_recv() {
        report(step);
    }
    match result {
        // Without any progress, the environment was there. A size and a duration would look like a download.
        Ok(done) if !is_created => {
            ctx.recorder.normal(about(), "Pulled", present(reference));
            Ok(done.environment)
        }
        Ok(done) => {
            let took = began.elapsed();
            ctx.recorder.normal(
                about(),
                "Pulled",
                format!(
                    "Created the environment of image {reference:?} in {:.1}s. Size: {} bytes ({}).",
                    took.as_secs_f64(),
                    done.size_bytes,
                    human_size(done.size_bytes)
                ),
            );
            Ok(done.environment)
        }
        Err(message) => Err(Blocked::Image { message }),
    }
}
