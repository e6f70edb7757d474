//! `ToolchainIntegration`: validation.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::EnvVar;
use legion_api::{
    Problem, Reason, ToolchainIntegration, ToolchainIntegrationSpec, ToolchainIntegrationStatus,
    rules::{RESERVED_ENV_PREFIX, reserved_env_message},
    toolchain::ToolchainRevision,
};

use crate::{
    Settings,
    conditions::{self, Explanation},
    image,
    plan::{Outcome, Plan, StatusPatch, status_patch},
    schema::Schema,
};

/// The input of a decision about a toolchain.
#[derive(Debug, Clone)]
pub struct World {
    /// The toolchain, as the watch shows it.
    pub toolchain: Arc<ToolchainIntegration>,
}

/// Returns the problems of a toolchain. The list is empty when the toolchain is usable.
#[must_use]
pub(crate) fn problems(spec: &ToolchainIntegrationSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |field: &str, message: String| problems.push(Problem::new(Reason::InvalidSpec, field, message));
    if let Err(error) = image::check(&spec.image) {
        add("spec.image", format!("{:?} {error}", spec.image));
    }
    if spec.command.first().is_none_or(String::is_empty) {
        add("spec.command", "must name a program".to_owned());
    }
    for (field, schema) in [
        ("spec.arguments", &spec.arguments),
        ("spec.hyperParametersSchema", &spec.hyper_parameters_schema),
    ] {
        if let Some(schema) = schema
            && let Err(error) = Schema::compile(&schema.to_value())
        {
            add(field, error);
        }
    }
    problems.extend(reserved_env(&spec.env));
    problems
}

/// Returns a problem for each variable with Legion's prefix. The CRD refuses such variables, but an older CRD may not.
pub(crate) fn reserved_env(env: &[EnvVar]) -> impl Iterator<Item = Problem> {
    env.iter()
        .enumerate()
        .filter(|(_, variable)| variable.name.starts_with(RESERVED_ENV_PREFIX))
        .map(|(index, variable)| {
            let message = format!("{:?}: {}", variable.name, reserved_env_message());
            Problem::new(Reason::InvalidSpec, format!("spec.env[{index}].name"), message)
        })
}

/// Decides about a toolchain.
#[must_use]
pub fn decide(world: &World, _: &Settings, now: Timestamp) -> Plan<ToolchainIntegrationStatus> {
    let metadata = &world.toolchain.metadata;
    if metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let generation = metadata.generation.unwrap_or_default();
    let status = world.toolchain.status.as_ref();
    // Compiling schemas is the only work. A generation with a positive result needs no second check.
    if status.is_some_and(|status| {
        status.observed_generation == Some(generation)
            && legion_api::condition::is_true(&status.conditions, legion_api::condition::READY)
            && status
                .revision
                .as_ref()
                .is_some_and(|revision| revision.generation == generation)
    }) {
        return Plan::default();
    }
    let problems = problems(&world.toolchain.spec);
    let state =
        Explanation::of_problems(&problems).unwrap_or_else(|| Explanation::new(Reason::Valid, "trainings can use it"));
    let previous = status.map_or(&[][..], |status| &status.conditions);
    let revision = problems.is_empty().then(|| ToolchainRevision {
        generation,
        image: world.toolchain.spec.image.clone(),
    });
    Plan {
        status: Some(ToolchainIntegrationStatus {
            observed_generation: Some(generation),
            conditions: conditions::for_ready(previous, &state, generation, now),
            revision,
        }),
        problems,
        ..Plan::default()
    }
}

/// Returns the status write that follows from a plan.
#[must_use]
pub fn settle(
    world: &World,
    plan: &Plan<ToolchainIntegrationStatus>,
    _: &Outcome,
    _: Timestamp,
) -> Option<StatusPatch> {
    let toolchain = &world.toolchain;
    status_patch(
        toolchain.metadata.resource_version.as_deref(),
        toolchain.status.as_ref(),
        plan.status.as_ref()?,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Outcome;

    #[test]
    fn the_problems_are_in_the_plan_and_in_the_status() {
        let toolchain: ToolchainIntegration = serde_json::from_value(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ToolchainIntegration",
            "metadata": {"name": "a", "generation": 1},
            "spec": {
                "type": "Training", "image": "A", "command": [""], "format": "gppi/v1",
                "arguments": {"type": "strin"}, "hyperParametersSchema": {"type": "strin"},
                "env": [{"name": "LEGIO"}, {"name": "LEGION_TASK"}],
            },
        }))
        .unwrap();
        let world = World {
            toolchain: Arc::new(toolchain),
        };
        let plan = decide(&world, &Settings::new("legion-system", "agent"), Timestamp::UNIX_EPOCH);
        let fields: Vec<_> = plan.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.image",
                "spec.command",
                "spec.arguments",
                "spec.hyperParametersSchema",
                "spec.env[1].name"
            ]
        );
        let status = plan.status.unwrap();
        assert_eq!(status.conditions[0].reason, "InvalidSpec");
        assert_eq!(status.revision, None);
    }

    #[test]
    fn a_generation_is_checked_once() {
        let toolchain: ToolchainIntegration = serde_json::from_value(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ToolchainIntegration",
            "metadata": {"name": "a", "generation": 3, "resourceVersion": "7"},
            "spec": {"type": "Training", "image": "a:1", "command": ["train"], "format": "gppi/v1"},
        }))
        .unwrap();
        let mut world = World {
            toolchain: Arc::new(toolchain),
        };
        let settings = Settings::new("legion-system", "agent");
        let now = Timestamp::UNIX_EPOCH;
        let plan = decide(&world, &settings, now);
        let patch = settle(&world, &plan, &Outcome::default(), now).unwrap();
        assert_eq!(patch.body["status"]["conditions"][0]["reason"], "Valid");
        let status = plan.status.unwrap();
        assert_eq!(status.revision.as_ref().map(|revision| revision.generation), Some(3));
        Arc::make_mut(&mut world.toolchain).status = Some(status.clone());
        assert!(decide(&world, &settings, now).is_empty());
        // Anything that is not of this generation is checked again.
        let stale = |change: fn(&mut ToolchainIntegrationStatus)| {
            let mut world = world.clone();
            let mut status = status.clone();
            change(&mut status);
            Arc::make_mut(&mut world.toolchain).status = Some(status);
            !decide(&world, &settings, now).is_empty()
        };
        assert!(stale(|status| status.observed_generation = Some(2)));
        assert!(stale(|status| status.revision.as_mut().unwrap().generation = 2));
        assert!(stale(|status| status.revision = None));
        assert!(stale(|status| status.conditions.clear()));
    }
}
