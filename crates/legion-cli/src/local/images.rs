//! The local counterparts of the images of Legion and of the toolchains.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube_embed::node::images::{Image, ImageEnvironment, ImageTable};
use legion_protocol::env;

use super::{
    interpreters::{self, Places},
    python::PythonEnvironment,
    toolchains::{Environment, Toolchain},
};

/// Image of `legion-agent`, as the local operator names it.
pub(crate) const AGENT_IMAGE: &str = concat!("legion-platform/agent:", env!("CARGO_PKG_VERSION"));

/// The image table of the local mode.
pub(crate) struct LocalImages {
    entries: BTreeMap<String, Image>,
}

impl LocalImages {
    /// Creates a table with the programs of Legion and these toolchains.
    #[must_use]
    pub(crate) fn new(programs: &Path, toolchains: &[Toolchain], cache: &Path) -> Self {
        let mut agent = ImageEnvironment::system();
        agent.path.insert(0, programs.to_owned());
        let mut entries = BTreeMap::from([(AGENT_IMAGE.to_owned(), Image::Ready(agent))]);
        let interpreters = exposed_interpreters(cache);
        for toolchain in toolchains {
            entries.insert(toolchain.local.image.clone(), entry(toolchain, cache, &interpreters));
        }
        Self { entries }
    }
}

/// Returns directories with the interpreters that are not in the directories of the machine. A project may need one.
fn exposed_interpreters(cache: &Path) -> Vec<PathBuf> {
    let system = ImageEnvironment::system().path;
    let mut beside = Places::of_user().interpreters();
    beside.retain(|found| {
        found
            .program
            .parent()
            .is_none_or(|directory| !system.iter().any(|of| of == directory))
    });
    interpreters::expose(&beside, &cache.join("interpreters")).unwrap_or_else(|error| {
        // Projects can still use the toolchain's own interpreter.
        tracing::warn!(%error, cache = %cache.display(), "the interpreters of pyenv and uv are not available to pods");
        Vec::new()
    })
}

fn entry(toolchain: &Toolchain, cache: &Path, interpreters: &[PathBuf]) -> Image {
    let mut environment = ImageEnvironment::system();
    environment.path.extend(interpreters.iter().cloned());
    let own: Vec<PathBuf> = toolchain
        .local
        .path
        .iter()
        .map(|path| toolchain.directory.join(path))
        .collect();
    environment.path.splice(0..0, own);
    environment.env = toolchain.local.env.clone().into_iter().collect();
    environment
        .env
        .push((env::CACHE.to_owned(), toolchain.cache(cache).display().to_string()));
    if toolchain.local.environment == Environment::default() {
        Image::Ready(environment)
    } else {
        Image::Prepare(Arc::new(PythonEnvironment::new(
            toolchain,
            environment,
            cache.to_owned(),
        )))
    }
}

impl ImageTable for LocalImages {
    fn find(&self, reference: &str) -> Option<Image> {
        self.entries.get(reference).cloned()
    }

    fn remedy(&self, reference: &str) -> String {
        let known: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        format!(
            "the local mode runs processes instead of containers and has only the images {}; register a toolchain with {reference:?} in its local.yaml (LEGION_TOOLCHAINS), or use a cluster",
            known.join(", ")
        )
    }
}
