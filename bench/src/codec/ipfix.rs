//! In: records. Out: the messages that the sensor's IPFIX exporter sends for them, and back to the numbers of each
//! record, as a collector reads them: by the templates in the messages.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use flow::Record;
use sensor::ipfix_messages;

use super::formats::Format;

/// Long messages, as over TCP or in a file: fewer headers, which is good for this format.
const MESSAGE_BYTES_MAX: usize = 65_507;
const HEADER_BYTES: usize = 16;
const TEMPLATE_SET: u16 = 2;
/// A field of this length says its length in each record.
const VARIABLE: u16 = 0xffff;

/// IPFIX messages, one after another.
pub(super) struct Ipfix;

impl Format for Ipfix {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>> {
        let mut messages = Vec::new();
        ipfix_messages(records, MESSAGE_BYTES_MAX, 1_767_603_600, &mut messages);
        Ok(messages)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut templates = BTreeMap::new();
        let (mut left, mut records) = (bytes, 0);
        while !left.is_empty() {
            let length = usize::from(u16_at(left, 2)?);
            ensure!(length >= HEADER_BYTES, "a message of {length} bytes");
            let (message, rest) = left.split_at_checked(length).context("a message is cut")?;
            records += message_records(&message[HEADER_BYTES..], &mut templates)?;
            left = rest;
        }
        Ok(records)
    }
}

/// Lengths of the fields of each template.
type Templates = BTreeMap<u16, Vec<u16>>;

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let field = bytes.get(at..at + 2).context("a field is cut")?;
    Ok(u16::from_be_bytes([field[0], field[1]]))
}

fn message_records(mut sets: &[u8], templates: &mut Templates) -> Result<usize> {
    let mut records = 0;
    while !sets.is_empty() {
        let (number, length) = (u16_at(sets, 0)?, usize::from(u16_at(sets, 2)?));
        ensure!(length >= 4, "a set of {length} bytes");
        let (set, rest) = sets.split_at_checked(length).context("a set is cut")?;
        sets = rest;
        if number == TEMPLATE_SET {
            read_templates(&set[4..], templates)?;
            continue;
        }
        let fields = templates.get(&number).context("a set without its template")?;
        let mut data = &set[4..];
        while !data.is_empty() {
            data = read_record(data, fields)?;
            records += 1;
        }
    }
    Ok(records)
}

fn read_templates(mut set: &[u8], templates: &mut Templates) -> Result<()> {
    while !set.is_empty() {
        let (number, count) = (u16_at(set, 0)?, u16_at(set, 2)?);
        set = &set[4..];
        let mut lengths = Vec::new();
        for _ in 0..count {
            let (element, length) = (u16_at(set, 0)?, u16_at(set, 2)?);
            lengths.push(length);
            // An element of an enterprise has that one's number behind it.
            let bytes = if element & 0x8000 == 0 { 4 } else { 8 };
            set = set.get(bytes..).context("a template is cut")?;
        }
        templates.insert(number, lengths);
    }
    Ok(())
}

/// Reads the numbers of a record; gives what is behind it.
fn read_record<'a>(mut data: &'a [u8], fields: &[u16]) -> Result<&'a [u8]> {
    for length in fields {
        let mut length = usize::from(*length);
        if length == usize::from(VARIABLE) {
            let (first, rest) = data.split_first().context("a length is cut")?;
            (length, data) = (usize::from(*first), rest);
            if length == 255 {
                length = usize::from(u16_at(data, 0)?);
                data = &data[2..];
            }
        }
        let (field, rest) = data.split_at_checked(length).context("a record is cut")?;
        let number = field.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        std::hint::black_box(number);
        data = rest;
    }
    Ok(data)
}
