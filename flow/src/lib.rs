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
mod duplicate;
mod fragment;
mod frame;
mod handshake;
pub mod inspect;
pub mod kernel;
mod key;
mod observation;
mod outer;
mod parse;
mod record;
mod slot;

pub use address::Address;
pub use books::Books;
#[cfg(not(target_arch = "bpf"))]
pub use community_id::{CommunityId, community_id};
pub use duplicate::{
    COPIES_MAX, COPY_WITHIN_MS, RECENT_SETS, RECENT_WAYS, RecentSet, packet_identity, recent_set,
};
pub use fragment::{FRAGMENTS, Fragment, FragmentSlot, fragment_place};
pub use frame::{Frame, OFFSET_MAX};
pub use handshake::{
    HANDSHAKES, HandshakeSlot, handshake_fingerprint, handshake_place, handshake_rtt_us,
};
pub use key::{FlowKey, Kind, protocol};
pub use observation::{Observation, OpeningTime, TcpSeen};
pub use outer::{NoTunnel, Outer, TUNNEL_IDS_MAX, TUNNELS_MAX, Tunnel, TunnelKind, Vlans};
pub use parse::{
    LinkLayer, Malformed, Notes, Packet, Parsed, Walk, Walked, dscp, parse, parse_common,
    parse_plain, plain_v4, plain_v6,
};
pub use record::{Direction, EndReason, Handshake, Pseudonyms, Record, RoleEvidence};
pub use slot::{Slot, tcp_flag};
