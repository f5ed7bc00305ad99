//! Why an object is refused: what it does that it may not, and where.

use thiserror::Error;

/// What the object does that it may not.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ObjectError {
    /// The bytes are no BPF object.
    #[error("cannot read it: {0}")]
    Unreadable(String),
    /// A section that is not on the list: nobody has looked at what a loader would make of it.
    #[error("section `{0}` is not on the list")]
    Section(String),
    /// A section that holds data which a program could write.
    #[error("section `{0}` is writable data")]
    WritableData(String),
    /// A program that is not on the list, or lies in another section than the list has it.
    #[error("section `{section}` has program `{program}`, which is not on the list")]
    Program {
        /// Section of the object.
        section: String,
        /// Name of the program.
        program: String,
    },
    /// A program on the list is missing.
    #[error("program `{0}` is missing")]
    ProgramMissing(&'static str),
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
    /// A table that is not on the list.
    #[error("table `{0}` is not on the list")]
    TableUnknown(String),
    /// A table on the list is missing.
    #[error("table `{0}` is missing")]
    TableMissing(&'static str),
    /// A table whose definition is not as the list has it.
    #[error("table `{table}` has {property} {found}, the list has {expected}")]
    Table {
        /// Name of the table.
        table: String,
        /// Which property: its kind, key, entries or flags.
        property: &'static str,
        /// What the object says.
        found: String,
        /// What the list says.
        expected: String,
    },
    /// A table that could hold a piece of a packet: single bytes in a row.
    #[error("table `{table}` keeps {length} single bytes in a row in `{field}`")]
    Bytes {
        /// Name of the table.
        table: String,
        /// Path of the field within an entry.
        field: String,
        /// How many.
        length: usize,
    },
    /// A table whose entry is made of something else than the list has it.
    #[error("table `{table}` has {found} in `{field}`, the list has {expected}")]
    Layout {
        /// Name of the table.
        table: String,
        /// Path of the field within an entry.
        field: String,
        /// What the object says.
        found: String,
        /// What the list says.
        expected: String,
    },
}
