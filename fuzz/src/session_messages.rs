//! Takes the bytes of one message of the link, of either direction; checks that reading them ends with a message or
//! with a fault, and that what was read is written as it is read again.

use uplink::rewrite_message;

/// Reads a message, writes it, and reads it again.
pub fn session_messages(data: &[u8]) {
    let Ok(written) = rewrite_message(data) else { return };
    assert_eq!(data.first(), written.first(), "it is of the same kind");
    assert_eq!(rewrite_message(&written).as_ref(), Ok(&written));
}
