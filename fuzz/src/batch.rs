//! Takes the bytes of a batch without its checksum; checks that decoding them ends with records or with a
//! fault, and that records which come out can be sealed and opened again.

use uplink::{BATCH_BYTES_MAX, SigningKey, open, open_header, seal};

/// Magic, version, zero, and the two lengths; the first length is at 12, the second at 16.
const PREAMBLE: usize = 20;
const SIGNATURE: usize = 64;

/// Opens a batch whose checksum is made right, as its sender could have made it.
pub fn batch(data: &[u8]) {
    // As it is, little but the outermost checks is met.
    assert!(open(data).is_err() || open_header(data).is_ok());
    let mut bytes = data.to_vec();
    let Some(header) = bytes.get(12..16).and_then(<[u8]>::first_chunk) else { return };
    let header = u32::from_le_bytes(*header) as usize;
    // The columns are what is behind the header, so that the lengths fit after every insertion.
    if let Some(columns) = bytes.len().checked_sub(PREAMBLE.saturating_add(header))
        && let Ok(columns) = u32::try_from(columns)
    {
        bytes[16..PREAMBLE].copy_from_slice(&columns.to_le_bytes());
    }
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&checksum);
    bytes.extend_from_slice(&[0; SIGNATURE]);
    assert!(bytes.len() <= BATCH_BYTES_MAX, "inputs are short");
    let Ok(opened) = open(&bytes) else { return };
    assert_eq!(open_header(&bytes).as_ref(), Ok(&opened.header));
    let Ok(sealed) = seal(&opened.header, &opened.records, &key()) else { return };
    let again = open(&sealed).expect("what was sealed can be opened");
    assert_eq!(again, opened);
}

fn key() -> SigningKey {
    let mut pkcs8 = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pkcs8.extend(0..32);
    SigningKey::from_pkcs8(&pkcs8).expect("the form is that of the standard")
}
