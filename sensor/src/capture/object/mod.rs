//! The XDP object that this sensor was built with, and the check that it can take nothing but headers along:
//! which helpers it calls, which kinds of tables it has, how large their entries are.
//!
//! It looks at the same bytes that are given to the kernel, before they are given.

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use flow::Slot;
use flow::inspect::{Conversation, InspectTotals, Recent, Seen};
use flow::kernel::{CoarseSlot, Control, Cpu, MMAPABLE, Set};

/// Built by `cargo xtask ebpf build`.
pub(super) static OBJECT: &[u8] = include_aligned();

const fn include_aligned() -> &'static [u8] {
    /// The object file is read in place, which wants it aligned as a file in memory would be.
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    const BYTES: &Aligned<[u8]> =
        &Aligned(*include_bytes!("../../../../sensor-ebpf/prebuilt/spanwatch.bpf.o"));
    &BYTES.0
}

/// SHA-256 of the object.
pub(super) fn sha256() -> [u8; 32] {
    Sha256::digest(OBJECT).into()
}

/// What the object does that it may not.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ObjectError {
    /// The bytes are no BPF object.
    #[error("cannot read it: {0}")]
    Unreadable(String),
    /// A helper that is not on the list; the list holds none that could move packet bytes.
    #[error("section `{section}` calls helper {helper} at instruction {instruction}")]
    Helper {
        /// Section of the object.
        section: String,
        /// Number of the helper (`BPF_FUNC_…`).
        helper: i32,
        /// Index of the instruction.
        instruction: usize,
    },
    /// A call of a kernel function, none of which is needed.
    #[error("section `{section}` calls a kernel function at instruction {instruction}")]
    KernelFunction {
        /// Section of the object.
        section: String,
        /// Index of the instruction.
        instruction: usize,
    },
    /// A table that is not on the list, or not as the list has it.
    #[error("table `{table}` has kind {kind}, entries of {value_bytes} bytes and flags {flags:#x}")]
    Table {
        /// Name of the table.
        table: String,
        /// Number of the kind (`BPF_MAP_TYPE_…`).
        kind: u32,
        /// Size of an entry.
        value_bytes: u32,
        /// Flags.
        flags: u32,
    },
    /// A table on the list is missing.
    #[error("table `{0}` is missing")]
    TableMissing(&'static str),
    /// A section that holds data which a program could write.
    #[error("section `{0}` is writable data")]
    WritableData(String),
}

/// Look up an entry of a table, which the list below bounds.
const MAP_LOOKUP_ELEM: i32 = 1;
/// The number of the CPU.
const GET_SMP_PROCESSOR_ID: i32 = 8;
/// The tick counter.
const JIFFIES64: i32 = 118;
/// The length of a frame in several buffers; a number, no bytes.
const XDP_GET_BUFF_LEN: i32 = 188;
const HELPERS: [i32; 4] = [MAP_LOOKUP_ELEM, GET_SMP_PROCESSOR_ID, JIFFIES64, XDP_GET_BUFF_LEN];

/// `BPF_MAP_TYPE_ARRAY`, the only kind of table.
const ARRAY: u32 = 2;

/// Every table, with the size of its entries: integers only, and of packet bytes no more than two addresses.
#[expect(clippy::cast_possible_truncation, reason = "the sizes are a few hundred bytes")]
const TABLES: [(&str, u32); 10] = [
    ("CONTROL", size_of::<Control>() as u32),
    ("CPUS", size_of::<Cpu>() as u32),
    ("SETS", size_of::<Set>() as u32),
    ("LOG", size_of::<Slot>() as u32),
    ("COARSE", size_of::<CoarseSlot>() as u32),
    ("STACK_WORDS", size_of::<u64>() as u32),
    ("INSPECT_CPUS", size_of::<InspectTotals>() as u32),
    ("INSPECT_SEEN", size_of::<Seen>() as u32),
    ("INSPECT_RECENT", size_of::<Recent>() as u32),
    ("CONVERSATIONS", size_of::<Conversation>() as u32),
];

/// Bytes of a table's definition: kind, key size, value size, entries, flags, two unused words.
const DEFINITION_BYTES: usize = 28;

/// Refuses an object that calls anything, or keeps anything, beyond the lists above.
pub(super) fn check(object: &[u8]) -> Result<(), ObjectError> {
    let unreadable = |error: object::read::Error| ObjectError::Unreadable(error.to_string());
    let elf: ElfFile64<'_> = ElfFile64::parse(object).map_err(unreadable)?;
    for section in elf.sections() {
        let name = section.name().map_err(unreadable)?;
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is = |flag: u32| sh_flags & u64::from(flag) != 0;
        if is(object::elf::SHF_EXECINSTR) {
            check_calls(name, section.data().map_err(unreadable)?)?;
        } else if is(object::elf::SHF_ALLOC) && is(object::elf::SHF_WRITE) && name != "maps" {
            return Err(ObjectError::WritableData(name.to_owned()));
        }
    }
    check_tables(&elf)
}

fn check_calls(section: &str, code: &[u8]) -> Result<(), ObjectError> {
    const CALL: u8 = 0x85;
    for (instruction, bytes) in code.as_chunks::<8>().0.iter().enumerate() {
        let [operation, registers, _, _, immediate @ ..] = *bytes;
        if operation != CALL {
            continue;
        }
        // The upper half of the registers byte says what is called: 0 a helper, 1 a function of this object.
        match registers >> 4 {
            0 if HELPERS.contains(&i32::from_le_bytes(immediate)) => {}
            1 => {}
            0 => {
                let helper = i32::from_le_bytes(immediate);
                return Err(ObjectError::Helper {
                    section: section.to_owned(),
                    helper,
                    instruction,
                });
            }
            _ => {
                return Err(ObjectError::KernelFunction {
                    section: section.to_owned(),
                    instruction,
                });
            }
        }
    }
    Ok(())
}

fn check_tables(elf: &ElfFile64<'_>) -> Result<(), ObjectError> {
    let unreadable = |error: object::read::Error| ObjectError::Unreadable(error.to_string());
    let section = elf
        .section_by_name("maps")
        .ok_or_else(|| ObjectError::Unreadable("it has no section `maps`".to_owned()))?;
    let data = section.data().map_err(unreadable)?;
    let mut found = Vec::with_capacity(TABLES.len());
    for symbol in elf.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
        let table = symbol.name().map_err(unreadable)?;
        let definition = usize::try_from(symbol.address())
            .ok()
            .and_then(|start| data.get(start..)?.first_chunk::<DEFINITION_BYTES>())
            .ok_or_else(|| ObjectError::Unreadable(format!("table `{table}` is cut")))?;
        let mut words = definition.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let [kind, _, value_bytes, _, flags] =
            std::array::from_fn(|_| words.next().unwrap_or_default());
        if kind != ARRAY || flags != MMAPABLE || !TABLES.contains(&(table, value_bytes)) {
            let table = table.to_owned();
            return Err(ObjectError::Table { table, kind, value_bytes, flags });
        }
        found.push(table);
    }
    for (table, _) in TABLES {
        if !found.contains(&table) {
            return Err(ObjectError::TableMissing(table));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
