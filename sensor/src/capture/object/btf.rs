//! Takes the type section of a BPF object (BTF, as the kernel's documentation lays it out); gives its types by
//! number. Reads what the check of the tables asks for, and refuses what is cut or points outside.
//!
//! The loader reads the same section, but its library keeps the fields of the types to itself.

use super::ObjectError;

const MAGIC: u16 = 0xeb9f;
/// What the header holds at least: magic, version, flags and five lengths.
const HEADER_BYTES: usize = 24;
/// Names, constness and the like in front of a type that are followed before it counts as endless.
const ALIASES_MAX: usize = 32;

/// One type, as far as a table's entry can be made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type<'a> {
    /// An integer.
    Integer {
        /// Its size.
        bytes: usize,
        /// Whether all bits of all its bytes are the integer.
        whole: bool,
    },
    /// A pointer to this type.
    Pointer(u32),
    /// So many of this type.
    Array(u32, usize),
    /// A structure.
    Struct {
        /// Its size.
        bytes: usize,
        /// Name, type and offset in bits of each field.
        fields: Vec<(&'a str, u32, u32)>,
    },
    /// A variable of this type.
    Variable(&'a str, u32),
    /// The variables of a section.
    Section(&'a str, Vec<u32>),
    /// Another name for this type.
    Alias(u32),
    /// A type that no entry is made of, by the number of its kind.
    Other(u32),
}

/// All types of an object.
#[derive(Debug)]
pub(super) struct Types<'a> {
    types: Vec<Type<'a>>,
}

impl<'a> Types<'a> {
    /// Reads the section.
    pub(super) fn parse(section: &'a [u8]) -> Result<Self, ObjectError> {
        read(section).ok_or_else(|| unreadable("its type section (.BTF) is cut or damaged"))
    }

    /// A type by its number, behind any other names.
    pub(super) fn get(&self, number: u32) -> Result<&Type<'a>, ObjectError> {
        let mut number = number;
        for _ in 0..ALIASES_MAX {
            // Number 0 is `void`, which is not written down.
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            match index.and_then(|index| self.types.get(index)) {
                Some(Type::Alias(next)) => number = *next,
                Some(found) => return Ok(found),
                None => return Err(unreadable(&format!("there is no type {number}"))),
            }
        }
        Err(unreadable(&format!("type {number} is a name for itself")))
    }

    /// The variables of the section of this name.
    pub(super) fn section(&self, name: &str) -> Vec<u32> {
        let named = self.types.iter().filter_map(|one| match one {
            Type::Section(section, variables) if *section == name => Some(variables),
            _ => None,
        });
        named.flatten().copied().collect()
    }
}

fn unreadable(what: &str) -> ObjectError {
    ObjectError::Unreadable(what.to_owned())
}

/// Reads little-endian words from the front.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn next_size(&mut self) -> Option<usize> {
        usize::try_from(self.next()?).ok()
    }
}

fn read(section: &[u8]) -> Option<Types<'_>> {
    let (header, _) = section.split_first_chunk::<HEADER_BYTES>()?;
    let mut words = Words(header);
    let magic = words.next()?.to_le_bytes();
    let header_bytes = words.next_size()?;
    if u16::from_le_bytes([magic[0], magic[1]]) != MAGIC || header_bytes < HEADER_BYTES {
        return None;
    }
    let (types_start, types_bytes) = (words.next_size()?, words.next_size()?);
    let (names_start, names_bytes) = (words.next_size()?, words.next_size()?);
    let behind = section.get(header_bytes..)?;
    let types = behind.get(types_start..types_start.checked_add(types_bytes)?)?;
    let names = behind.get(names_start..names_start.checked_add(names_bytes)?)?;
    let mut words = Words(types);
    let mut types = Vec::new();
    while !words.0.is_empty() {
        types.push(read_type(&mut words, names)?);
    }
    Some(Types { types })
}

fn name(names: &[u8], start: u32) -> Option<&str> {
    let text = names.get(usize::try_from(start).ok()?..)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    str::from_utf8(text.get(..end)?).ok()
}

fn read_type<'a>(words: &mut Words<'_>, names: &'a [u8]) -> Option<Type<'a>> {
    let (own_name, info, size_or_type) = (words.next()?, words.next()?, words.next()?);
    let own_name = name(names, own_name)?;
    let (kind, members) = (info >> 24 & 0x1f, info & 0xffff);
    let is_bit_field = info >> 31 == 1;
    let bytes = usize::try_from(size_or_type).ok()?;
    let read = match kind {
        1 => {
            let encoding = words.next()?;
            let (offset, bits) = (encoding >> 16 & 0xff, encoding & 0xff);
            let whole = offset == 0 && usize::try_from(bits).ok()? == bytes * 8;
            Type::Integer { bytes, whole }
        }
        2 => Type::Pointer(size_or_type),
        3 => {
            let (element, _index, length) = (words.next()?, words.next()?, words.next_size()?);
            Type::Array(element, length)
        }
        4 | 5 => {
            let mut fields = Vec::new();
            for _ in 0..members {
                let (field, of, offset) = (words.next()?, words.next()?, words.next()?);
                fields.push((name(names, field)?, of, offset));
            }
            // A union, or fields of single bits: nothing here is made of those.
            let plain = kind == 4 && !is_bit_field;
            if plain { Type::Struct { bytes, fields } } else { Type::Other(kind) }
        }
        8..=11 | 18 => Type::Alias(size_or_type),
        14 => {
            let _linkage = words.next()?;
            Type::Variable(own_name, size_or_type)
        }
        15 => {
            let mut variables = Vec::new();
            for _ in 0..members {
                let (variable, _offset, _bytes) = (words.next()?, words.next()?, words.next()?);
                variables.push(variable);
            }
            Type::Section(own_name, variables)
        }
        // Enumerations, functions, floating point, marks: passed over.
        6 | 13 => passed_over(words, kind, members * 2)?,
        19 => passed_over(words, kind, members * 3)?,
        17 => passed_over(words, kind, 1)?,
        7 | 12 | 16 => Type::Other(kind),
        _ => return None,
    };
    Some(read)
}

fn passed_over<'a>(words: &mut Words<'_>, kind: u32, length: u32) -> Option<Type<'a>> {
    for _ in 0..length {
        words.next()?;
    }
    Some(Type::Other(kind))
}
