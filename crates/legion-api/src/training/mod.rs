//! `ModelTraining`: source code, data and hyperparameters in; a trained model, its metrics and its lineage out.

mod source;
mod spec;
mod status;

pub use source::{ConfigMapItem, ConfigMapSource, GitSource, ObjectStoreSource, Source, VolumeSource};
pub use spec::{
    DataBinding, Goal, ModelIdentity, ModelTraining, ModelTrainingSpec, Objective, Output, PLACEHOLDERS, PodMetadata,
    Workspace,
};
pub use status::{
    EnvironmentFacts, ExternalRun, Metric, ModelTrainingStatus, Omitted, OutputFacts, SourceFacts, StoredSeries,
};
