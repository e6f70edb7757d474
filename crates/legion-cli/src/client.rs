//! Which API to talk to, and as whom.

use std::path::PathBuf;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    args::Global,
    exit::{CliError, Code, Result},
    local::DataDir,
};

/// A client, and the namespace that commands work in.
pub struct Session {
    /// The API.
    pub client: Client,
    /// `--namespace`, else the context's.
    pub namespace: String,
}

/// Connects to the API that the command line, the environment or the machine names, in this order.
pub async fn connect(global: &Global) -> Result<Session> {
    let data_dir = DataDir::choose(global.data_dir.as_deref())?;
    let local = data_dir.is_up().then(|| data_dir.kubeconfig());
    let file: Option<PathBuf> = match &global.kubeconfig {
        Some(file) => Some(file.clone()),
        None if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) => None,
        None => local,
    };
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::new(Code::NotFound, format!("no usable kubeconfig: {error}"))
            .remedy("start the local API with `legionctl local up --detach`, or name a kubeconfig with --kubeconfig")
    };
    let config = match &file {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| wrong(&error))?
        }
        None if global.context.is_some() => Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
        None => Config::infer().await.map_err(|error| wrong(&error))?,
    };
    let namespace = global
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    Ok(Session {
        client: Client::try_from(config)?,
        namespace,
    })
}

/// The same, for a command that must answer at once when nothing listens.
pub async fn reach(global: &Global) -> Result<Session> {
    let session = connect(global).await?;
    session.client.apiserver_version().await?;
    Ok(session)
}
