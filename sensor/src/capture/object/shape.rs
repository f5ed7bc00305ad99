//! What an entry of a table is made of: the sensor's own types as a tree of integers, and the comparison of that
//! tree with what the object says of itself.
//!
//! The tree is made from the types that user space reads the tables by, field by field; a field that is added there
//! and not here does not compile.

use std::fmt;
use std::mem::offset_of;

use flow::inspect::{Conversation, InspectTotals, Recent, Seen, Segment, Stream};
use flow::kernel::{CoarseSlot, Cpu, Set};
use flow::{Address, FlowKey, FragmentSlot, HandshakeSlot, Outer, RecentSet, Slot, Walk};

use super::ObjectError;
use super::btf::{Type, Types};

/// What a type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An integer of so many bytes.
    Integer(usize),
    /// So many of one shape.
    Array(&'static Self, usize),
    /// Fields at their offsets, in so many bytes.
    Struct(usize, &'static [Field]),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) offset: usize,
    pub(super) shape: &'static Shape,
}

/// A type that a table may be made of.
pub(super) trait Kept {
    const SHAPE: Shape;
}

impl Kept for u8 {
    const SHAPE: Shape = Shape::Integer(1);
}

impl Kept for u16 {
    const SHAPE: Shape = Shape::Integer(2);
}

impl Kept for u32 {
    const SHAPE: Shape = Shape::Integer(4);
}

impl Kept for u64 {
    const SHAPE: Shape = Shape::Integer(8);
}

impl<T: Kept, const N: usize> Kept for [T; N] {
    const SHAPE: Shape = Shape::Array(&T::SHAPE, N);
}

/// Every field of a type with the type of the field; the compiler compares both with the definition.
macro_rules! kept {
    ($type:ident { $($field:ident: $of:ty),+ $(,)? }) => {
        impl Kept for $type {
            const SHAPE: Shape = Shape::Struct(
                size_of::<$type>(),
                &[$(Field {
                    name: stringify!($field),
                    offset: offset_of!($type, $field),
                    shape: &<$of as Kept>::SHAPE,
                }),+],
            );
        }

        const _: fn($type) -> ($($of,)+) = |$type { $($field),+ }| ($($field,)+);
    };
}

kept!(Address { high: u64, low: u64 });
kept!(FlowKey { source: Address, destination: Address, tail: u64 });
kept!(Slot {
    key: FlowKey,
    bytes_generation: u64,
    packets: u32,
    first: u32,
    last_and_syn: u16,
    tcp_flags: u8,
    ttl: u8,
    length_min: u16,
    length_max: u16,
});
kept!(Cpu {
    epoch: u64,
    region: u32,
    sets: u32,
    frames_seen: u64,
    packets_ip: u64,
    packets_folded: u64,
    log_cursor: [u64; 2],
    stray_packets: u64,
    stray_bytes: u64,
    stray_syns: u64,
    malformed: [u64; flow::Malformed::ALL.len()],
    not_ip: [u64; flow::kernel::NOT_IP_KINDS],
    packets_cut: u64,
    noted: [u64; flow::Notes::NAMES.len()],
    carried: [u64; flow::kernel::CARRIERS],
    fragments: [u64; 3],
    packets_duplicate: u64,
});
kept!(Outer { layers: u64, ids: u64 });
kept!(HandshakeSlot { syn: u64, answer: u64 });
kept!(CoarseSlot {
    destination: Address,
    tail: u64,
    packets: u64,
    bytes: u64,
    syns: u64,
    first: u32,
    last: u32,
    generation: u32,
    padding: u32,
});

kept!(InspectTotals {
    frames: u64,
    bytes: u64,
    frames_group: u64,
    frames_own: u64,
    frame_bytes_max: u64,
    frames_jumbo: u64,
    frames_cut: u64,
    cut_bytes_max: u64,
    frames_tagged: u64,
    frames_tagged_twice: u64,
    packets_ip: u64,
    packets_malformed: u64,
    fragments: u64,
    packets_tcp: u64,
    tcp_cut: u64,
    unplaced: u64,
    unplaced_syns: u64,
    comparable: u64,
    copies: u64,
    copies_other_ttl: u64,
    copies_other_tags: u64,
    not_ip: [u64; flow::kernel::NOT_IP_KINDS],
    encapsulated: [u64; flow::inspect::ENCAPSULATION_KINDS],
});
kept!(Segment {
    sequence: u32,
    acknowledgement: u32,
    payload: u32,
    tags: u32,
    cpu: u16,
    flags: u8,
    padding: u8,
});
kept!(Seen {
    key: FlowKey,
    outer: Outer,
    identity: u64,
    segment: Segment,
    tags: u32,
    ttl: u32,
    fragment: u32,
    network_offset: u32,
    transport_offset: u32,
    length_told: u32,
    has_segment: u32,
});
kept!(Recent { identity: u64, ticks: u32, tags: u32, ttl: u32, padding: u32 });
kept!(Stream {
    payload_bytes: u64,
    gap_bytes: u64,
    lost_bytes: u64,
    packets: u32,
    segments: u32,
    gaps: u32,
    late: u32,
    retransmitted: u32,
    lost_gaps: u32,
    holes_unwatched: u32,
    tag_changes: u32,
    cpu_changes: u32,
    next: u32,
    acknowledged: u32,
    tags: u32,
    holes: [[u32; 2]; flow::inspect::HOLES],
    cpu: u16,
    payload_max: u16,
    state: u16,
    padding: u16,
});
kept!(Conversation { tag: u64, key: FlowKey, streams: [Stream; 2] });

/// The same for a type whose fields are its own business, with their offsets; that the list is complete shows in the
/// object, of which the comparison wants every field, and in the sum of the sizes.
macro_rules! kept_as {
    ($type:ident { $($offset:literal $field:ident: $of:ty),+ $(,)? }) => {
        impl Kept for $type {
            const SHAPE: Shape = Shape::Struct(
                size_of::<$type>(),
                &[$(Field {
                    name: stringify!($field),
                    offset: $offset,
                    shape: &<$of as Kept>::SHAPE,
                }),+],
            );
        }

        const _: () = assert!(0 $(+ size_of::<$of>())+ == size_of::<$type>());
    };
}

kept_as!(FragmentSlot {
    0 source: Address,
    16 destination: Address,
    32 outer: Outer,
    48 tail: u64,
    56 identification: u32,
    60 time: u32,
});
kept_as!(Walk {
    0 source: Address,
    16 destination: Address,
    32 tail: u64,
    40 packet_outer: Outer,
    56 outer: Outer,
    72 identification: u32,
    76 network_offset: u32,
    80 transport_offset: u32,
    84 length_told: u32,
    88 offset: u32,
    92 tags: u32,
    96 ethertype: u16,
    98 named: u16,
    100 tcp_flags: u8,
    101 ttl: u8,
    102 notes: u8,
    103 fragment: u8,
    104 reached: u8,
    105 guessed: u8,
    106 dscp: u8,
    107 padding_byte: u8,
    108 padding: [u16; 2],
});

impl Kept for RecentSet {
    /// A field without a name is called so in the object.
    const SHAPE: Shape = Shape::Struct(
        size_of::<Self>(),
        &[Field {
            name: "__0",
            offset: offset_of!(Self, 0),
            shape: &<[u64; flow::RECENT_WAYS] as Kept>::SHAPE,
        }],
    );
}

impl Kept for Set {
    /// As above.
    const SHAPE: Shape = Shape::Struct(
        size_of::<Self>(),
        &[Field {
            name: "__0",
            offset: offset_of!(Self, 0),
            shape: &<[Slot; flow::kernel::WAYS] as Kept>::SHAPE,
        }],
    );
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(bytes) => write!(formatter, "an integer of {bytes} bytes"),
            Self::Array(_, length) => write!(formatter, "an array of {length}"),
            Self::Struct(bytes, fields) => {
                write!(formatter, "a struct of {bytes} bytes with {} fields", fields.len())
            }
        }
    }
}

/// Levels of structs and arrays in an entry; the deepest of ours has 6.
const DEPTH_MAX: usize = 16;

/// Compares what the object says of a table's entry with what it has to be.
pub(super) struct Comparison<'a> {
    pub(super) types: &'a Types<'a>,
    pub(super) table: &'a str,
}

impl Comparison<'_> {
    /// Refuses bytes in a row anywhere in a type, whatever the list says.
    pub(super) fn refuse_bytes(&self, number: u32) -> Result<(), ObjectError> {
        self.refuse_bytes_below(number, "entry", DEPTH_MAX)
    }

    fn refuse_bytes_below(&self, number: u32, path: &str, depth: usize) -> Result<(), ObjectError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.differs(path, "levels without end", &"a few"));
        };
        match self.types.get(number)? {
            Type::Array(element, length) => {
                if *length > 1
                    && matches!(self.types.get(*element)?, Type::Integer { bytes: 0..=1, .. })
                {
                    return Err(ObjectError::Bytes {
                        table: self.table.to_owned(),
                        field: path.to_owned(),
                        length: *length,
                    });
                }
                self.refuse_bytes_below(*element, &format!("{path}[]"), depth)
            }
            Type::Struct { fields, .. } => fields.iter().try_for_each(|(name, of, _)| {
                self.refuse_bytes_below(*of, &format!("{path}.{name}"), depth)
            }),
            _ => Ok(()),
        }
    }

    /// Requires that a type is exactly this shape: names, order, offsets and sizes of all fields.
    pub(super) fn require(&self, number: u32, shape: &Shape) -> Result<(), ObjectError> {
        self.require_at(number, shape, "entry")
    }

    fn require_at(&self, number: u32, shape: &Shape, path: &str) -> Result<(), ObjectError> {
        let found = self.types.get(number)?;
        match (found, shape) {
            (Type::Integer { bytes, whole: true }, Shape::Integer(expected))
                if bytes == expected =>
            {
                Ok(())
            }
            (Type::Array(element, length), Shape::Array(of, expected)) if length == expected => {
                self.require_at(*element, of, &format!("{path}[]"))
            }
            (Type::Struct { bytes, fields }, Shape::Struct(expected, of)) => {
                if bytes != expected || fields.len() != of.len() {
                    return Err(self.differs(path, &describe(found), shape));
                }
                for ((name, number, bits), field) in fields.iter().zip(*of) {
                    let path = format!("{path}.{name}");
                    if *name != field.name {
                        return Err(self.differs(&path, "this field", &field.name));
                    }
                    if usize::try_from(*bits).ok() != field.offset.checked_mul(8) {
                        let (found, expected) =
                            (format!("offset {bits} bits"), format!("{} bytes", field.offset));
                        return Err(self.differs(&path, &found, &expected));
                    }
                    self.require_at(*number, field.shape, &path)?;
                }
                Ok(())
            }
            (found, shape) => Err(self.differs(path, &describe(found), shape)),
        }
    }

    fn differs(&self, path: &str, found: &str, expected: &dyn fmt::Display) -> ObjectError {
        ObjectError::Layout {
            table: self.table.to_owned(),
            field: path.to_owned(),
            found: found.to_owned(),
            expected: expected.to_string(),
        }
    }
}

fn describe(found: &Type<'_>) -> String {
    match found {
        Type::Integer { bytes, whole: true } => Shape::Integer(*bytes).to_string(),
        Type::Integer { bytes, whole: false } => format!("some bits of {bytes} bytes"),
        Type::Pointer(_) => "a pointer".to_owned(),
        Type::Array(_, length) => format!("an array of {length}"),
        Type::Struct { bytes, fields } => {
            format!("a struct of {bytes} bytes with {} fields", fields.len())
        }
        Type::Variable(..) | Type::Section(..) | Type::Alias(_) | Type::Other(_) => {
            "something that is no integer".to_owned()
        }
    }
}
