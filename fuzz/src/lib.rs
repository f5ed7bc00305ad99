//! What each fuzz target checks. In: any bytes. Out: nothing; a panic is a finding. The same sources are
//! part of `tests/tests/fuzz_corpora.rs`, where stable Rust runs them over every file of the corpora.

mod aggregator;
mod batch;
mod captures;
mod enrolment;
mod frame;
mod session_messages;

pub use aggregator::aggregator;
pub use batch::batch;
pub use captures::{compressed, pcap, pcapng};
pub use enrolment::enrolment;
pub use frame::frame;
pub use session_messages::session_messages;
