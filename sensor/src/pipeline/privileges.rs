//! Takes a process that has attached its kernel program; gives up the rights that only attaching
//! needed.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// What may be kept: writing into a state folder that belongs to another account.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Gives up all capabilities but one for this thread and those it starts, for good. To be called
/// before other threads start.
///
/// # Errors
/// When the system refuses; nothing has been given up then.
pub(super) fn drop_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let kept = held.permitted & KEPT;
    set_capabilities(
        None,
        CapabilitySets {
            effective: held.effective & KEPT,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}
