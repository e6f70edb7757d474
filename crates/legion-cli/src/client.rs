//! The choice of the API, of the credentials and of the namespace.

use std::{env, path::PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    args::Global,
    data_dir::DataDir,
    exit::{CliError, Code, Result},
};

/// A client and the namespace of the command.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// From `--namespace`, or else from the context.
    pub(crate) namespace: String,
    /// Data directory of the local mode, if it is known. It holds the results that the local node has stored.
    pub(crate) data_dir: Option<DataDir>,
}

impl Session {
    /// Returns a session in this namespace, or in the same namespace for `None`.
    #[must_use]
    pub(crate) fn in_namespace(&self, namespace: Option<&str>) -> Self {
        Self {
            client: self.client.clone(),
            namespace: namespace.unwrap_or(&self.namespace).to_owned(),
            data_dir: self.data_dir.clone(),
        }
    }
}

/// Creates a client from the command line, the environment or the user's files, in this order.
pub(crate) async fn connect(global: &Global) -> Result<Session> {
    let named = env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let data_dir = match DataDir::choose(global.data_dir.as_deref()) {
        Ok(data_dir) => Some(data_dir),
        // If the API is named, the data directory is not needed.
        Err(_) if global.kubeconfig.is_some() || named => None,
        Err(error) => return Err(error),
    };
    let local = data_dir.as_ref().filter(|data_dir| data_dir.is_up());
    let file: Option<PathBuf> = match (&global.kubeconfig, local) {
        (Some(file), _) => Some(file.clone()),
        // `--data-dir` selects the API of that directory.
        (None, Some(local)) if !named || global.data_dir.is_some() => Some(local.kubeconfig()),
        (None, _) => None,
    };
    if let (None, None, false, Some(data_dir)) = (&file, &global.context, named, &data_dir)
        && global.data_dir.is_some()
    {
        return Err(down(data_dir, "no API is configured"));
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
                "no API is configured: there is no kubeconfig in $KUBECONFIG or ~/.kube/config",
            ),
            None => CliError::new(Code::NotFound, "no API is configured").remedy("name a kubeconfig with --kubeconfig"),
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
    CliError::new(Code::NotFound, format!("{what}, and the local API of {root} is not up")).remedy(format!(
        "start it with `legionctl local up --detach --data-dir {root}`, or name a kubeconfig with --kubeconfig"
    ))
}

/// Connects like [`connect`], and fails immediately if the API does not answer.
pub(crate) async fn reach(global: &Global) -> Result<Session> {
    let session = connect(global).await?;
    session.client.apiserver_version().await?;
    Ok(session)
}
