//! Takes the bytes of an enrolment code, of a message of enrolment or renewal, of a certificate request or a
//! certificate; checks that reading them ends with a value or a fault, and that a value is written again as it was
//! read.

/// Reads them in each of these ways.
pub fn enrolment(data: &[u8]) {
    uplink::exercise_enrolment(data);
}
