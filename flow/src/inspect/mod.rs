//! What `doctor` looks at in a mirror port's traffic: takes frames, gives counts of what is wrong with the mirror
//! itself (copies, gaps, cut frames, tags on one side only). The same source runs in the inspection XDP program
//! and in user space over a capture file.
//!
//! It takes what the parser found, reads headers only, as the parser does, and of TCP the sequence numbers and the
//! checksum besides. It holds integers in arrays of fixed size; what finds no place in them is counted. It decides
//! nothing: what the counts mean is `doctor`'s business.

mod look;
mod shapes;
mod stream;

pub use look::{
    ENCAPSULATION_KINDS, Look, Seen, Segment, compare, encapsulation_name, look, look_inside,
};
pub use shapes::{
    CONVERSATION_PLACES, CONVERSATION_PROBES, Conversation, FRAME_BYTES_PLAIN, InspectTotals,
    RECENT_PLACES, Recent, conversation_place, is_copy, recent_place,
};
pub use stream::{HOLES, Stream, stream_state};
