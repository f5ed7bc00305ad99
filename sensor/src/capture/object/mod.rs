//! The XDP object that this sensor was built with, and the check that it can take nothing but headers along:
//! which programs and sections it has, what they call, which tables they write and what an entry is made of.
//!
//! It looks at the same bytes that are given to the kernel, before they are given.

mod btf;
mod code;
mod error;
mod shape;
mod tables;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolKind};
use sha2::{Digest as _, Sha256};

use btf::Types;
pub use error::ObjectError;

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

/// Sections of code: programs for frames in one buffer, for frames in several, and functions that both call.
const CODE: [&str; 3] = ["xdp", "xdp.frags", FUNCTIONS];
/// Functions are no programs: nothing attaches them.
const FUNCTIONS: &str = ".text";

/// Every program, with its section. What it may return, drop or pass, is in its code; what could send a frame
/// elsewhere is a helper, and on no list.
const PROGRAMS: [(&str, &str); 14] = [
    ("xdp", "clock"),
    ("xdp", "count_drop"),
    ("xdp", "count_pass"),
    ("xdp", "deduplicate_drop"),
    ("xdp", "deduplicate_pass"),
    ("xdp", "floor_drop"),
    ("xdp", "inspect_drop"),
    ("xdp", "inspect_pass"),
    ("xdp.frags", "count_drop_frags"),
    ("xdp.frags", "count_pass_frags"),
    ("xdp.frags", "deduplicate_drop_frags"),
    ("xdp.frags", "deduplicate_pass_frags"),
    ("xdp.frags", "inspect_drop_frags"),
    ("xdp.frags", "inspect_pass_frags"),
];

/// Sections that a loader makes no memory of that a program can write.
const DATA: [&str; 3] = ["license", ".rodata", tables::SECTION];

/// Sections that only describe the others.
const DESCRIPTIONS: [&str; 10] = [
    "",
    ".strtab",
    ".symtab",
    ".BTF",
    ".BTF.ext",
    ".rel.text",
    ".rel.BTF",
    ".rel.BTF.ext",
    ".relxdp",
    ".relxdp.frags",
];

/// Refuses an object that has, calls or keeps anything beyond the lists.
pub(super) fn check(object: &[u8]) -> Result<(), ObjectError> {
    let elf: ElfFile64<'_> = ElfFile64::parse(object).map_err(unreadable)?;
    let mut types = None;
    for section in elf.sections() {
        let name = section.name().map_err(unreadable)?;
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is = |flag: u32| sh_flags & u64::from(flag) != 0;
        if is(object::elf::SHF_WRITE) {
            return Err(ObjectError::WritableData(name.to_owned()));
        }
        if is(object::elf::SHF_EXECINSTR) != CODE.contains(&name)
            || !(CODE.contains(&name) || DATA.contains(&name) || DESCRIPTIONS.contains(&name))
        {
            return Err(ObjectError::Section(name.to_owned()));
        }
        let data = section.data().map_err(unreadable)?;
        if CODE.contains(&name) {
            code::check_calls(name, data)?;
        } else if name == ".BTF" {
            types = Some(Types::parse(data)?);
        }
    }
    let types = types.ok_or_else(|| {
        ObjectError::Unreadable("it does not say what its tables are made of (.BTF)".to_owned())
    })?;
    tables::check(&types)?;
    check_programs(&elf)
}

fn unreadable(error: object::read::Error) -> ObjectError {
    ObjectError::Unreadable(error.to_string())
}

fn check_programs(elf: &ElfFile64<'_>) -> Result<(), ObjectError> {
    let mut found = Vec::with_capacity(PROGRAMS.len());
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let program = symbol.name().map_err(unreadable)?;
        let index = symbol.section_index();
        let section = index.and_then(|index| elf.section_by_index(index).ok());
        let section = section.map_or(Ok(""), |section| section.name().map_err(unreadable))?;
        if section == FUNCTIONS {
            continue;
        }
        if !PROGRAMS.contains(&(section, program)) {
            let (section, program) = (section.to_owned(), program.to_owned());
            return Err(ObjectError::Program { section, program });
        }
        found.push(program);
    }
    for (_, program) in PROGRAMS {
        if !found.contains(&program) {
            return Err(ObjectError::ProgramMissing(program));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
