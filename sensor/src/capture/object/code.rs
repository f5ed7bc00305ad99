//! What the code of a section calls.

use super::ObjectError;

/// Look up an entry of a table, which the list of tables bounds.
const MAP_LOOKUP_ELEM: i32 = 1;
/// The precise clock.
const KTIME_GET_NS: i32 = 5;
/// The number of the CPU.
const GET_SMP_PROCESSOR_ID: i32 = 8;
/// The tick counter.
const JIFFIES64: i32 = 118;
/// The length of a frame in several buffers; a number, no bytes.
const XDP_GET_BUFF_LEN: i32 = 188;
const HELPERS: [i32; 5] =
    [MAP_LOOKUP_ELEM, KTIME_GET_NS, GET_SMP_PROCESSOR_ID, JIFFIES64, XDP_GET_BUFF_LEN];

/// Refuses calls of anything but the helpers on the list and functions of the object itself.
pub(super) fn check_calls(section: &str, code: &[u8]) -> Result<(), ObjectError> {
    /// Class `JMP`, operation `CALL`, by number; the same by register, and in class `JMP32`.
    const CALLS: [u8; 4] = [0x85, 0x8d, 0x86, 0x8e];
    for (instruction, bytes) in code.as_chunks::<8>().0.iter().enumerate() {
        let [operation, registers, _, _, immediate @ ..] = *bytes;
        if !CALLS.contains(&operation) {
            continue;
        }
        // The upper half of the registers byte says what is called: 0 a helper, 1 a function of this object.
        match (operation, registers >> 4) {
            (0x85, 0) if HELPERS.contains(&i32::from_le_bytes(immediate)) => {}
            (0x85, 1) => {}
            (0x85, 0) => {
                let helper = i32::from_le_bytes(immediate);
                return Err(ObjectError::Helper {
                    section: section.to_owned(),
                    helper,
                    instruction,
                });
            }
            _ => {
                return Err(ObjectError::KernelFunction {
                    section: section.to_owned(),
                    instruction,
                });
            }
        }
    }
    Ok(())
}
