//! The tables that the object may have, and the check of those that it has: kind, key, flags, entries, and what an
//! entry is made of.
//!
//! The definitions are read from where the loader reads them: the variables of section `.maps` in the object's
//! types.

use flow::inspect::{Conversation, InspectTotals, Recent, Seen};
use flow::kernel::{CoarseSlot, Cpu, MMAPABLE, Set};
use flow::{FragmentSlot, HandshakeSlot, Outer, RecentSet, Slot, Walk};

use super::ObjectError;
use super::btf::{Type, Types};
use super::shape::{Comparison, Kept as _, Shape};

/// The section of the definitions.
pub(super) const SECTION: &str = ".maps";

/// `BPF_MAP_TYPE_ARRAY`, the only kind of table.
const ARRAY: usize = 2;

/// Every table, with what its entries are made of: integers only, and of packet bytes no more than two addresses. The
/// last four are the inspection's, and empty while the sensor counts.
pub(super) const TABLES: [(&str, Shape); 13] = [
    ("CPUS", Cpu::SHAPE),
    ("SETS", Set::SHAPE),
    ("LOG", Slot::SHAPE),
    ("COARSE", CoarseSlot::SHAPE),
    ("OUTER_IDENTITIES", Outer::SHAPE),
    ("FIRST_FRAGMENTS", FragmentSlot::SHAPE),
    ("WALKS", Walk::SHAPE),
    ("HANDSHAKE_TIMES", HandshakeSlot::SHAPE),
    ("RECENT_PACKETS", RecentSet::SHAPE),
    ("INSPECT_CPUS", InspectTotals::SHAPE),
    ("INSPECT_SEEN", Seen::SHAPE),
    ("INSPECT_RECENT", Recent::SHAPE),
    ("CONVERSATIONS", Conversation::SHAPE),
];

/// Refuses tables beyond the list, and those that are not as the list has them.
pub(super) fn check(types: &Types<'_>) -> Result<(), ObjectError> {
    let mut found = Vec::with_capacity(TABLES.len());
    for variable in types.section(SECTION) {
        let Type::Variable(table, of) = types.get(variable)? else {
            return Err(ObjectError::Unreadable(format!("type {variable} is no table")));
        };
        check_table(types, table, *of)?;
        found.push(*table);
    }
    for (table, _) in TABLES {
        if !found.contains(&table) {
            return Err(ObjectError::TableMissing(table));
        }
    }
    Ok(())
}

fn check_table(types: &Types<'_>, table: &str, definition: u32) -> Result<(), ObjectError> {
    let comparison = Comparison { types, table };
    let definition = Definition::read(types, table, definition)?;
    comparison.refuse_bytes(definition.value)?;
    let Some((_, shape)) = TABLES.iter().find(|(name, _)| *name == table) else {
        return Err(ObjectError::TableUnknown(table.to_owned()));
    };
    let number = |property, found: usize, expected: usize| {
        if found == expected {
            return Ok(());
        }
        Err(ObjectError::Table {
            table: table.to_owned(),
            property,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    };
    number("kind", definition.kind, ARRAY)?;
    number("flags", definition.flags, usize::try_from(MMAPABLE).unwrap_or(usize::MAX))?;
    // User space says how many when it loads the object.
    number("entries", definition.entries, 1)?;
    if !matches!(types.get(definition.key)?, Type::Integer { bytes: 4, whole: true }) {
        return Err(ObjectError::Table {
            table: table.to_owned(),
            property: "key",
            found: format!("of type {}", definition.key),
            expected: Shape::Integer(4).to_string(),
        });
    }
    comparison.require(definition.value, shape)
}

/// What the object says of one table; the numbers of `key` and `value` are types.
#[derive(Default)]
struct Definition {
    kind: usize,
    key: u32,
    value: u32,
    entries: usize,
    flags: usize,
}

impl Definition {
    /// The definition is a struct whose fields are pointers: to the types, or to an array whose length is the
    /// number that is meant.
    fn read(types: &Types<'_>, table: &str, number: u32) -> Result<Self, ObjectError> {
        let Type::Struct { fields, .. } = types.get(number)? else {
            return Err(ObjectError::Unreadable(format!("table `{table}` has no definition")));
        };
        let mut definition = Self::default();
        for (name, of, _) in fields {
            let Type::Pointer(target) = types.get(*of)? else {
                return Err(unknown_property(table, name));
            };
            let length = || match types.get(*target)? {
                Type::Array(_, length) => Ok(*length),
                _ => Err(unknown_property(table, name)),
            };
            match *name {
                "type" => definition.kind = length()?,
                "key" => definition.key = *target,
                "value" => definition.value = *target,
                "max_entries" => definition.entries = length()?,
                "map_flags" => definition.flags = length()?,
                _ => return Err(unknown_property(table, name)),
            }
        }
        Ok(definition)
    }
}

fn unknown_property(table: &str, name: &str) -> ObjectError {
    ObjectError::Table {
        table: table.to_owned(),
        property: "property",
        found: format!("`{name}`"),
        expected: "type, key, value, max_entries and map_flags".to_owned(),
    }
}
