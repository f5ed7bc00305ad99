//! Takes records; gives the column section of a batch, and the way back. Never unpacks more than the record count
//! allows.
//!
//! Records that have the same *shape* (protocol, flags, end reason, which values they have at all) lie side by side in
//! every column but the first two. So a column holds no values that a shape makes needless, and those that it holds are
//! of one kind at a time. `docs/format.md` has every column.

mod code;
mod decode;
mod dictionary;
mod distinct;
mod encode;
mod numbers;
mod packer;
mod shape;
mod unpacker;

pub(super) use decode::decode;
pub(super) use encode::Encoder;

/// What the bytes of a direction are when all packets but the longest have the least length; wraps, because
/// only the difference from it is kept.
fn predicted_bytes(packets: u64, length_min: u16, length_max: u16) -> u64 {
    let others = packets.wrapping_sub(1).wrapping_mul(u64::from(length_min));
    // A mask in place of a branch: whether a side sent anything is hard to guess.
    others.wrapping_add(u64::from(length_max)) & u64::from(packets != 0).wrapping_neg()
}
