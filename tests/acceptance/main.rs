//! What Legion promises about trainings, asserted through kubectl. The same cases run on the embedded API and in a real
//! cluster with Legion installed.
//!
//! `cargo test --test acceptance` runs them on the embedded API. In a cluster: `cargo xtask cluster run -- cargo test
//! --test acceptance -- --ignored`.
#![allow(clippy::unwrap_used, reason = "a test fails at the first unexpected result")]

mod cases;

/// Defines one test per case and backend.
macro_rules! on_both_backends {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            use legion_tests::cluster::{Backend, Cluster};
            $(
                #[test]
                fn $case() -> anyhow::Result<()> {
                    crate::cases::$case(&Cluster::new(Backend::Embedded, stringify!($case))?)
                }
            )*
        }

        mod kubernetes {
            use legion_tests::cluster::{Backend, Cluster};
            $(
                #[test]
                #[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
                fn $case() -> anyhow::Result<()> {
                    crate::cases::$case(&Cluster::new(Backend::Kubernetes, stringify!($case))?)
                }
            )*
        }
    };
}

on_both_backends! {
    the_script_example_trains,
    the_wine_example_trains,
    an_unchanged_manifest_starts_nothing_and_a_changed_one_starts_a_run,
    objects_may_be_applied_in_any_order,
    a_suspended_training_has_no_pod_and_resumes,
    a_deleted_pod_costs_only_an_attempt,
    a_failing_command_is_retried_as_configured,
    a_timeout_ends_the_command,
    pods_of_ended_attempts_are_deleted_after_their_ttl,
    a_training_waits_for_a_missing_secret,
    deleting_a_training_ends_its_pod_in_every_phase,
    an_orphaned_pod_is_left_alone,
    wrong_manifests_are_refused_in_the_same_words,
}
