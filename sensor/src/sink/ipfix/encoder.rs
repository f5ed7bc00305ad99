//! Takes records; gives whole IPFIX messages (RFC 7011). A template goes out in the message that first needs
//! it, ahead of the data, so that a lost message never leaves the following ones unreadable for longer
//! than until templates are repeated. Pure: the time comes in, the messages go to whoever sends them.
//!
//! ```text
//! 0          2          4                8                12                16
//! ┌──────────┬──────────┬────────────────┬────────────────┬─────────────────┬───────
//! │ 10       │ length   │ export time, s │ data records   │ observation     │ sets …
//! │          │          │                │ sent before    │ domain          │
//! └──────────┴──────────┴────────────────┴────────────────┴─────────────────┴───────
//! set: 0          2          4
//!      ┌──────────┬──────────┬──────────
//!      │ 2, or the│ length   │ templates, or data
//!      │ template │          │
//!      └──────────┴──────────┴──────────
//! ```

use std::collections::BTreeSet;

use flow::Record;

use super::super::known::Known;
use super::template::{Shape, data_record, template_record};

const VERSION: u16 = 10;
const TEMPLATE_SET: u16 = 2;
const MESSAGE_HEADER_BYTES: usize = 16;
const SET_HEADER_BYTES: usize = 4;
/// Bytes that a message must have room for: more than the longest template and its data need.
pub(super) const MESSAGE_BYTES_MIN: usize = 512;

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// Data records in it.
    pub(super) records: u32,
}

/// Makes the messages of one transport session.
pub(super) struct Encoder {
    domain: u32,
    bytes_max: usize,
    /// Shapes whose templates need not be sent at the moment.
    announced: BTreeSet<Shape>,
    /// Messages after which templates are sent again.
    template_messages: u64,
    messages_since_announced: u64,
    /// Data records in messages that were given out.
    sequence: u32,
    message: Vec<u8>,
    records: u32,
    /// The data set in hand: its shape, and where it begins.
    set: Option<(Shape, usize)>,
    template: Vec<u8>,
    data: Vec<u8>,
}

impl Encoder {
    /// For a new session: nothing has been announced. Messages get at most `bytes_max` bytes; templates are
    /// sent again after `template_messages`.
    pub(super) fn new(domain: u32, bytes_max: usize, template_messages: u64) -> Self {
        debug_assert!(bytes_max >= MESSAGE_BYTES_MIN, "the setting has this range");
        Self {
            domain,
            bytes_max,
            announced: BTreeSet::new(),
            template_messages,
            messages_since_announced: 0,
            sequence: 0,
            message: vec![0; MESSAGE_HEADER_BYTES],
            records: 0,
            set: None,
            template: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Templates are sent again before the data that needs them.
    pub(super) fn repeat_templates(&mut self) {
        self.announced.clear();
        self.messages_since_announced = 0;
    }

    /// Adds a record; gives out the message in hand when that has no room for it.
    pub(super) fn handle_record(
        &mut self,
        record: &Record,
        export_s: u32,
        send: &mut impl FnMut(Message<'_>),
    ) {
        let known = Known::of(record);
        let shape = Shape::of(&known);
        self.data.clear();
        data_record(shape, &known, &mut self.data);
        self.prepare_template(shape, &known);
        if self.records > 0 && self.message.len() + self.needed(shape) > self.bytes_max {
            self.poll_message(export_s, send);
            // With that message the time for all templates may have come again.
            self.prepare_template(shape, &known);
        }
        if !self.template.is_empty() {
            self.end_set();
            let began = self.begin_set(TEMPLATE_SET);
            self.message.extend_from_slice(&self.template);
            self.set_length(began);
            self.announced.insert(shape);
        }
        if self.set.is_none_or(|(of, _)| of != shape) {
            self.end_set();
            let began = self.begin_set(shape.template());
            self.set = Some((shape, began));
        }
        self.message.extend_from_slice(&self.data);
        self.records += 1;
    }

    /// Gives out the message in hand, if there is anything in it.
    pub(super) fn poll_message(&mut self, export_s: u32, send: &mut impl FnMut(Message<'_>)) {
        self.end_set();
        if self.records == 0 {
            return;
        }
        let length =
            u16::try_from(self.message.len()).expect("the setting's range is below 64 KiB");
        let header = &mut self.message[..MESSAGE_HEADER_BYTES];
        header[0..2].copy_from_slice(&VERSION.to_be_bytes());
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..8].copy_from_slice(&export_s.to_be_bytes());
        header[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        header[12..16].copy_from_slice(&self.domain.to_be_bytes());
        send(Message { bytes: &self.message, records: self.records });
        self.sequence = self.sequence.wrapping_add(self.records);
        self.records = 0;
        self.message.truncate(MESSAGE_HEADER_BYTES);
        self.messages_since_announced += 1;
        if self.messages_since_announced >= self.template_messages {
            self.repeat_templates();
        }
    }

    /// Makes the template of the record at hand, if it has to be sent.
    fn prepare_template(&mut self, shape: Shape, known: &Known) {
        self.template.clear();
        if !self.announced.contains(&shape) {
            template_record(shape, known, &mut self.template);
        }
    }

    /// Bytes that the record at hand adds at most.
    fn needed(&self, shape: Shape) -> usize {
        let template = match self.template.len() {
            0 => 0,
            bytes => SET_HEADER_BYTES + bytes,
        };
        let goes_on = template == 0 && self.set.is_some_and(|(of, _)| of == shape);
        let header = if goes_on { 0 } else { SET_HEADER_BYTES };
        template + header + self.data.len()
    }

    fn begin_set(&mut self, number: u16) -> usize {
        let began = self.message.len();
        self.message.extend(number.to_be_bytes());
        self.message.extend([0, 0]);
        began
    }

    fn end_set(&mut self) {
        if let Some((_, began)) = self.set.take() {
            self.set_length(began);
        }
    }

    fn set_length(&mut self, began: usize) {
        let length = self.message.len() - began;
        let length = u16::try_from(length).expect("a set is no longer than its message");
        self.message[began + 2..began + 4].copy_from_slice(&length.to_be_bytes());
    }
}
