//! Everything that a running process holds: its memory as a core file would have it, and the kernel's tables that it
//! has open. In: a process id. Out: bytes, with the name of where they are from.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Pod;
use aya::maps::{Array, Map, MapData};

/// One table of the kernel.
#[derive(Clone, Debug)]
pub struct TableImage {
    /// Its name.
    pub name: String,
    /// Size of an entry.
    pub entry_bytes: usize,
    /// All entries in a row.
    pub bytes: Vec<u8>,
}

/// The tables of the kernel that a process has open, whole.
///
/// # Errors
///
/// When the process has gone, the kernel refuses, or a table is of a kind or size that this does not know.
pub fn tables(pid: u32) -> Result<Vec<TableImage>> {
    let mut found = BTreeSet::new();
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A file that has been closed since is no table.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let map = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        if let Some(map) = map {
            found.insert(map.trim().parse()?);
        }
    }
    found.into_iter().map(table).collect()
}

/// The library reads entries of a size that the compiler knows.
macro_rules! sized {
    ($size:expr, $map:expr, $name:expr, $($bytes:literal),+) => {
        match $size {
            $($bytes => entries::<$bytes>($map),)+
            other => bail!("table {} has entries of {other} bytes, which this cannot read yet", $name),
        }
    };
}

fn table(id: u32) -> Result<TableImage> {
    let data = MapData::from_id(id).with_context(|| format!("table {id}"))?;
    let info = data.info().with_context(|| format!("table {id}"))?;
    let name = info.name_as_str().with_context(|| format!("the name of table {id}"))?.to_owned();
    let entry_bytes = usize::try_from(info.value_size())?;
    let map = Map::from_map_data(data).with_context(|| format!("table {name}"))?;
    ensure!(matches!(map, Map::Array(_)), "table {name} is no array");
    let bytes = sized!(
        entry_bytes,
        map,
        name,
        4,
        8,
        12,
        16,
        20,
        24,
        28,
        32,
        36,
        40,
        44,
        48,
        52,
        56,
        60,
        64,
        68,
        72,
        76,
        80,
        84,
        88,
        92,
        96,
        100,
        104,
        108,
        112,
        116,
        120,
        124,
        128,
        136,
        144,
        152,
        160,
        168,
        176,
        184,
        192,
        200,
        208,
        216,
        224,
        232,
        240,
        248,
        256,
        264,
        272,
        280,
        288,
        296,
        304,
        312,
        320,
        328,
        336,
        344,
        352,
        360,
        368,
        376,
        384,
        392,
        400,
        408,
        416,
        424,
        432,
        440,
        448,
        456,
        464,
        472,
        480,
        488,
        496,
        504,
        512
    );
    let bytes = bytes.with_context(|| format!("reading table {name}"))?;
    Ok(TableImage { name, entry_bytes, bytes })
}

fn entries<const N: usize>(map: Map) -> Result<Vec<u8>>
where
    [u8; N]: Pod,
{
    let array: Array<MapData, [u8; N]> = map.try_into()?;
    let mut bytes = Vec::new();
    for entry in 0..array.len() {
        bytes.extend_from_slice(&array.get(&entry, 0)?);
    }
    Ok(bytes)
}

/// Gives every readable mapping of a process, piece by piece; pieces overlap by `overlap` bytes, so that nothing on
/// a border is missed. Returns how many bytes there were.
///
/// # Errors
///
/// When the process has gone, the kernel refuses, or a mapping cannot be read that is not the kernel's own.
pub fn memory(pid: u32, overlap: usize, visit: &mut dyn FnMut(&str, &[u8])) -> Result<u64> {
    const STEP: u64 = 1 << 20;
    let list = || fs::read_to_string(format!("/proc/{pid}/maps")).context("the list of mappings");
    let maps = list()?;
    let memory = File::open(format!("/proc/{pid}/mem")).context("the memory of a process")?;
    let mut buffer = vec![0; usize::try_from(STEP)? + overlap];
    let mut total = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let name = words.nth(3).unwrap_or("memory");
        // What the kernel shows a process of itself is not the process's.
        if !rights.starts_with('r') || ["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&name) {
            continue;
        }
        let (start, end) = range.split_once('-').context("a range of addresses")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        for from in (start..end).step_by(usize::try_from(STEP)?) {
            let wanted = usize::try_from((end - from).min(STEP + overlap as u64))?;
            let piece = buffer.get_mut(..wanted).context("a piece fits its buffer")?;
            if let Err(error) = memory.read_exact_at(piece, from) {
                // The process goes on meanwhile: what it has given back since is nobody's memory.
                if list()?.lines().any(|still| still == line) {
                    return Err(error).with_context(|| format!("reading {line}"));
                }
                break;
            }
            visit(line, piece);
        }
        total += end - start;
    }
    Ok(total)
}
