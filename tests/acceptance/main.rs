//! What Legion promises about trainings, asserted through kubectl: the same cases on the embedded API and in a real
//! cluster in which Legion is installed.
//!
//! `cargo test --test acceptance` runs them on the embedded API. In a cluster: `cargo xtask cluster run -- cargo test --test
//! acceptance -- --ignored`.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is not as it should be"
)]

mod cases;

/// Every case as a test of each backend.
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
    the_same_manifest_starts_nothing_and_a_changed_one_a_run,
    objects_may_be_applied_in_any_order,
    a_suspended_training_has_no_pod_and_resumes,
    a_deleted_pod_costs_an_attempt_and_nothing_else,
    a_failing_command_is_retried_as_often_as_asked,
    a_timeout_ends_the_command,
    pods_of_ended_attempts_go_after_their_time,
    a_missing_secret_is_waited_for,
    deleting_a_training_ends_its_pod_in_every_phase,
    an_orphaned_pod_is_left_alone,
    wrong_manifests_are_refused_in_the_same_words,
}
