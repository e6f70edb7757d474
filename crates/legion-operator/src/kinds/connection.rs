//! `Connection`.

use legion_api::{Connection, ConnectionSpec, ConnectionStatus};
use legion_plan::{
    connection::{World, decide, settle},
    training::is_default_output,
};

use crate::{
    kinds::standalone::Standalone,
    watch::{projection::without_managed_fields, references::Reference},
};

/// The default output of a namespace: what a training without an output refers to.
pub(crate) const DEFAULT_OUTPUT: &str = "default output";

without_managed_fields!(Connection, ConnectionSpec, ConnectionStatus);

pub(crate) fn controller() -> Standalone<Connection, World, ConnectionStatus> {
    Standalone {
        in_platform_namespace: false,
        provides: |key, connection| is_default_output(connection).then(|| Reference::namespace(DEFAULT_OUTPUT, key)),
        observe: |connection| World { connection },
        decide,
        settle,
    }
}
