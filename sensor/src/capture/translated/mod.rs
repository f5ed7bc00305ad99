//! Takes a loaded program; gives the calls that are left in it after the kernel has translated it. Only looks: it
//! changes nothing, and reads no frame.
#![expect(unsafe_code, reason = "the kernel is asked through a system call that no library wraps")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// `BPF_OBJ_GET_INFO_BY_FD` (`include/uapi/linux/bpf.h`).
const GET_INFO_BY_FD: libc::c_long = 15;

/// The part of `union bpf_attr` that the command reads.
#[repr(C)]
struct Question {
    file: u32,
    info_bytes: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`; the kernel fills no more than it is given room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    number: u32,
    tag: [u8; 8],
    machine_bytes: u32,
    translated_bytes: u32,
    machine: u64,
    translated: u64,
}

/// One BPF instruction as the kernel stores it.
type Instruction = [u8; 8];

/// The calls that a translated program holds, in the order in which they stand in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Functions of the kernel, by its own names where it shows them.
    pub helpers: Vec<String>,
    /// Calls of another function of the program itself.
    pub local: usize,
}

/// The calls of a loaded program.
pub(super) fn calls(program: impl AsFd) -> io::Result<Calls> {
    let found = called(&instructions(program)?);
    let helpers: Vec<_> = found.iter().filter_map(|callee| callee.distance()).collect();
    let local = found.len() - helpers.len();
    let symbols =
        if helpers.is_empty() { String::new() } else { std::fs::read_to_string("/proc/kallsyms")? };
    let helpers = helpers.into_iter().map(|distance| name(distance, &symbols)).collect();
    Ok(Calls { helpers, local })
}

/// What an instruction calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callee {
    /// A function of the kernel, as the distance from `__bpf_call_base`.
    Kernel(i32),
    /// Another function of the same program.
    Local,
}

impl Callee {
    const fn distance(self) -> Option<i32> {
        match self {
            Self::Kernel(distance) => Some(distance),
            Self::Local => None,
        }
    }
}

/// The kernel's own name for a function, where `/proc/kallsyms` shows addresses.
fn name(distance: i32, symbols: &str) -> String {
    let named = || {
        let base = address_of(symbols, "__bpf_call_base").filter(|base| *base != 0)?;
        let address = base.checked_add_signed(i64::from(distance))?;
        symbols.lines().find_map(|line| {
            let (digits, rest) = line.split_once(' ')?;
            let found = u64::from_str_radix(digits, 16).ok()? == address;
            found.then(|| rest.split_whitespace().nth(1))?
        })
    };
    named().map_or_else(|| format!("the kernel at {distance:+}"), str::to_owned)
}

fn address_of(symbols: &str, name: &str) -> Option<u64> {
    let line = symbols.lines().find(|line| line.split_whitespace().nth(2) == Some(name))?;
    u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
}

fn called(code: &[Instruction]) -> Vec<Callee> {
    const CALL: u8 = 0x85;
    const CALL_ARGUMENTS: u8 = 0xe5;
    const WIDE_LOAD: u8 = 0x18;
    const LOCAL: u8 = 1;
    let mut found = Vec::new();
    let mut instructions = code.iter();
    while let Some([operation, registers, _, _, immediate @ ..]) = instructions.next() {
        match *operation {
            // Its second half is a number, no instruction.
            WIDE_LOAD => drop(instructions.next()),
            CALL | CALL_ARGUMENTS if registers >> 4 == LOCAL => found.push(Callee::Local),
            CALL | CALL_ARGUMENTS => {
                found.push(Callee::Kernel(i32::from_le_bytes(*immediate)));
            }
            _ => {}
        }
    }
    found
}

fn instructions(program: impl AsFd) -> io::Result<Vec<Instruction>> {
    let file = program.as_fd();
    // Asked twice: for the length, and then for as much.
    let length = ask(file.as_raw_fd(), &mut ProgramInfo::default())?.translated_bytes;
    let mut code: Vec<Instruction> = vec![[0; 8]; length as usize / size_of::<Instruction>()];
    let mut info = ProgramInfo {
        translated_bytes: length,
        translated: code.as_mut_ptr().expose_provenance() as u64,
        ..ProgramInfo::default()
    };
    let told = ask(file.as_raw_fd(), &mut info)?;
    if told.translated == 0 || told.translated_bytes != length || length == 0 {
        return Err(io::Error::other("the kernel does not show translated programs"));
    }
    Ok(code)
}

fn ask(file: i32, info: &mut ProgramInfo) -> io::Result<&ProgramInfo> {
    let mut question = Question {
        file: file.cast_unsigned(),
        info_bytes: u32::try_from(size_of::<ProgramInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(info).expose_provenance() as u64,
    };
    // SAFETY: `question` is the part of `union bpf_attr` that this command reads, and it points at a
    // `ProgramInfo` that lives through the call, of the length that is given beside it; that in turn points at a
    // buffer of the length beside it, or at none with length 0. The kernel writes within these lengths.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            GET_INFO_BY_FD,
            std::ptr::from_mut(&mut question),
            size_of::<Question>(),
        )
    };
    if outcome == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
