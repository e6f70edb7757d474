//! `Scratch`.

use legion_api::scratch::{Scratch, ScratchSpec, ScratchStatus};
use legion_plan::scratch::{World, decide, requeue, settle};

use crate::{kinds::standalone::Standalone, watch::projection::without_managed_fields};

without_managed_fields!(Scratch, ScratchSpec, ScratchStatus);

pub(crate) fn controller() -> Standalone<Scratch, World, ScratchStatus> {
    Standalone {
        in_platform_namespace: false,
        provides: |_, _| None,
        observe: |scratch| World { scratch },
        decide,
        settle,
        requeue,
    }
}
