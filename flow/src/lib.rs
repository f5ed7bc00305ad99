//! The words every room shares, and the parser that runs on two machines.
//!
//! In: the bytes of one frame, through the [`Frame`] trait. Out: a [`FlowKey`] with what one packet adds to
//! its flow, and the shapes that carry flows onward: [`Slot`] (the kernel's cache line), [`Observation`] (what
//! the aggregator takes) and [`Record`] (what leaves the sensor).
//!
//! This crate never allocates, never reads a clock, and never touches a byte behind the transport header.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows one straight program: a call left in the fast path costs more than the body"
)]

mod address;
mod books;
#[cfg(not(target_arch = "bpf"))]
mod community_id;
mod frame;
pub mod inspect;
pub mod kernel;
mod key;
mod observation;
mod parse;
mod record;
mod slot;

pub use address::Address;
pub use books::Books;
#[cfg(not(target_arch = "bpf"))]
pub use community_id::{CommunityId, community_id};
pub use frame::{Frame, OFFSET_MAX};
pub use key::{FlowKey, Kind, protocol};
pub use observation::{Observation, TcpSeen};
pub use parse::{LinkLayer, Malformed, Packet, Parsed, Vlans, parse};
pub use record::{Direction, EndReason, Handshake, Record, RoleEvidence};
pub use slot::{Slot, tcp_flag};
