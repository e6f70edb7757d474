//! `ToolchainIntegration`.

use legion_api::{ToolchainIntegration, ToolchainIntegrationSpec, ToolchainIntegrationStatus};
use legion_plan::toolchain::{World, decide, settle};

use crate::{kinds::standalone::Standalone, watch::projection::without_managed_fields};

without_managed_fields!(
    ToolchainIntegration,
    ToolchainIntegrationSpec,
    ToolchainIntegrationStatus
);

pub(crate) fn controller() -> Standalone<ToolchainIntegration, World, ToolchainIntegrationStatus> {
    Standalone {
        // Toolchains of the platform serve every namespace.
        in_platform_namespace: true,
        provides: |_, _| None,
        observe: |toolchain| World { toolchain },
        decide,
        settle,
    }
}
