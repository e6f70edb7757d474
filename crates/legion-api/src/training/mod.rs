//! `ModelTraining`: trains a model from source code, data and hyperparameters.

mod source;
mod spec;
mod status;

pub use source::{ConfigMapItem, ConfigMapSource, GitSource, ObjectStoreSource, Source, VolumeSource};
pub use spec::{
    DataBinding, Goal, ModelIdentity, ModelTraining, ModelTrainingSpec, Objective, Output, PodMetadata, Workspace,
};
pub use status::{
    EnvironmentFacts, ExternalRun, Metric, ModelTrainingStatus, Omitted, OutputFacts, SourceFacts, StoredSeries,
};
