//! What the events say about an image's environment.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube_embed::node::images::{ImageEnvironment, PrepareImage, Prepared, Progress, StaticImages};
use kube_embed::node::runtime::scripted::ScriptedRuntime;
use kube_embed::{Clock, TokioClock};
use serde_json::json;

use super::cluster::{pod, start};

/// An environment whose creation takes these steps.
struct Steps(&'static [&'static str]);

impl PrepareImage for Steps {
    fn prepare(&self, progress: Progress) -> BoxFuture<'static, Result<Prepared, String>> {
        let steps = self.0;
        async move {
            for step in steps {
                progress.send((*step).to_owned()).map_err(|error| error.to_string())?;
            }
            Ok(Prepared {
                environment: ImageEnvironment {
                    cmd: vec!["run".into()],
                    ..Default::default()
                },
                size_bytes: 3 << 20,
            })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_exists_is_not_reported_as_a_download() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
    let runtime = Arc::new(ScriptedRuntime::new(Arc::clone(&clock)));
    let images = StaticImages::new()
        .with_preparation("there", Arc::new(Steps(&[])))
        .with_preparation("new", Arc::new(Steps(&["Installing"])));
    let cluster = start(clock, runtime, Arc::new(images), |_| {}).await;
    for (image, message) in [
        ("there", r#"Container image "there" already present on machine"#),
        (
            "new",
            r#"Created the environment of image "new" in 0.0s. Size: 3145728 bytes (3.0 MiB)."#,
        ),
    ] {
        let container = json!({"name": "main", "image": image});
        cluster.run(&pod(image, json!({"containers": [container]}))).await;
        let event = cluster.event(image, "Pulled").await;
        assert_eq!(event.message.as_deref(), Some(message));
    }
}
