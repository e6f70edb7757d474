//! Which API to talk to, and as whom.

use std::{env, path::PathBuf};

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
pub(crate) struct Session {
    /// The API.
    pub(crate) client: Client,
    /// `--namespace`, else the context's.
    pub(crate) namespace: String,
    /// The local mode's directory, where there can be one: results that the local node has stored are in it.
    pub(crate) data_dir: Option<DataDir>,
}

impl Session {
    /// The same in another namespace, where an object names one.
    #[must_use]
    pub(crate) fn in_namespace(&self, namespace: Option<&str>) -> Self {
        Self {
            client: self.client.clone(),
            namespace: namespace.unwrap_or(&self.namespace).to_owned(),
            data_dir: self.data_dir.clone(),
        }
    }
}

/// Connects to the API that the command line, the environment or the machine names, in this order.
pub(crate) async fn connect(global: &Global) -> Result<Session> {
    let named = env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let data_dir = match DataDir::choose(global.data_dir.as_deref()) {
        Ok(data_dir) => Some(data_dir),
        // Who names an API needs no directory.
        Err(_) if global.kubeconfig.is_some() || named => None,
        Err(error) => return Err(error),
    };
    let local = data_dir.as_ref().filter(|data_dir| data_dir.is_up());
    let file: Option<PathBuf> = match (&global.kubeconfig, local) {
        (Some(file), _) => Some(file.clone()),
        // Who names a directory means the API in it.
        (None, Some(local)) if !named || global.data_dir.is_some() => Some(local.kubeconfig()),
        (None, _) => None,
    };
    if let (None, None, false, Some(data_dir)) = (&file, &global.context, named, &data_dir)
        && global.data_dir.is_some()
    {
        return Err(down(data_dir, "no API to talk to"));
    }
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let wrong = |error: &dyn std::error::Error| {
        CliError::new(
            Code::NotFound,
            format!("no usable kubeconfig: {}", crate::exit::chain(error)),
        )
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
        None if named => Config::infer().await.map_err(|error| wrong(&error))?,
        None => Config::infer().await.map_err(|_| match &data_dir {
            Some(data_dir) => down(
                data_dir,
                "no API to talk to: no kubeconfig in $KUBECONFIG or ~/.kube/config",
            ),
            None => CliError::new(Code::NotFound, "no API to talk to").remedy("name a kubeconfig with --kubeconfig"),
        })?,
    };
    let namespace = global
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    Ok(Session {
        client: Client::try_from(config)?,
        namespace,
        data_dir,
    })
}

fn down(data_dir: &DataDir, what: &str) -> CliError {
    let root = data_dir.root().display();
    CliError::new(Code::NotFound, format!("{what}: the local one of {root} is not up")).remedy(format!(
        "start it with `legionctl local up --detach --data-dir {root}`, or name a kubeconfig with --kubeconfig"
    ))
}

/// The same, for a command that must answer at once when nothing listens.
pub(crate) async fn reach(global: &Global) -> Result<Session> {
    let session = connect(global).await?;
    session.client.apiserver_version().await?;
    Ok(session)
}
