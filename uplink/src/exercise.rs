//! Takes any bytes; reads them as everything that somebody may send who is not known yet, and as the answers of a
//! backend that is not what it seems. For fuzzing; never part of a running program.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::authority::requested_key;
use crate::code::write_text;
use crate::renew::messages;
use crate::{EnrolmentCode, certificate, wire};

/// Reads the bytes as an enrolment code, as each message of enrolment and renewal, as a certificate request and as a
/// certificate.
///
/// # Panics
///
/// When a reader does, or takes what its writer would not have written.
pub fn exercise_enrolment(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        code(text);
    }
    // As a code with the check bytes that belong to it, so that more than the check is met.
    let mut text = String::new();
    write_text(bytes, &mut text).expect("writing to a string cannot fail");
    code(&text);

    if let Ok(read) = wire::read_enrol(bytes) {
        assert_eq!(wire::enrol(&read.secret, read.request_der), bytes);
        drop(requested_key(read.request_der));
    }
    drop(requested_key(bytes));
    if let Ok(Ok(issued)) = wire::read_enrol_answer(bytes) {
        certificate_pem(issued.certificate_pem.as_bytes());
        certificate_pem(issued.authority_pem.as_bytes());
        assert_eq!(wire::enrol_answer(&Ok(issued)), bytes);
    }
    if let Ok(clock_unix_s) = messages::read_renew(bytes) {
        assert_eq!(messages::renew(clock_unix_s), bytes);
    }
    if let Ok(answer) = messages::read_answer(bytes) {
        match &answer.result {
            Ok(pem) => {
                certificate_pem(pem.as_bytes());
                assert_eq!(messages::answer(&answer), bytes);
            }
            // A longer reason than the writer's longest is read, and would be cut.
            Err(_) => assert!(messages::answer(&answer).len() <= bytes.len()),
        }
    }
    certificate_pem(bytes);
    drop(certificate::peer(&CertificateDer::from(bytes)));
    drop(certificate::spki_sha256(&CertificateDer::from(bytes)));
}

fn code(text: &str) {
    if let Ok(code) = text.parse::<EnrolmentCode>() {
        assert_eq!(code.to_string().parse().as_ref(), Ok(&code));
    }
}

fn certificate_pem(pem: &[u8]) {
    if let Ok(der) = CertificateDer::from_pem_slice(pem) {
        drop(certificate::peer(&der));
    }
}
