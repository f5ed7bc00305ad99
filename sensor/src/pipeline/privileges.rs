//! Takes a process that has attached its kernel program; gives up the rights that only attaching
//! needed. Nothing after that needs one: the kernel's maps are mapped into memory, their program goes
//! when its file descriptor is closed, and all files are the account's own.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Gives up all capabilities for this thread and those it starts, for good. To be called before other
/// threads start.
///
/// # Errors
/// When the system refuses; nothing has been given up then.
pub(super) fn drop_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
