//! The committed object passes; the same object with one thing too much does not.

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use super::btf::{Type, Types};
use super::shape::Shape;
use super::tables::{SECTION, TABLES};
use super::{OBJECT, ObjectError, check, sha256};

/// `BPF_FUNC_get_smp_processor_id`.
const GET_SMP_PROCESSOR_ID: i32 = 8;

/// Replaces every place where `from` stands.
fn changed(from: &[u8], to: &[u8]) -> Vec<u8> {
    changed_within(0..OBJECT.len(), from, to)
}

fn changed_within(range: std::ops::Range<usize>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut object = OBJECT.to_vec();
    let windows = OBJECT.get(range.clone()).expect("inside").windows(from.len()).enumerate();
    let places: Vec<_> = windows.filter(|(_, bytes)| *bytes == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "it stands there");
    for at in places {
        let at = range.start + at;
        object.get_mut(at..at + to.len()).expect("inside").copy_from_slice(to);
    }
    object
}

fn section(name: &str) -> (std::ops::Range<usize>, &'static [u8]) {
    let elf: ElfFile64<'_> = ElfFile64::parse(OBJECT).expect("an ELF file");
    let section = elf.section_by_name(name).expect("it has this section");
    let (start, length) = section.file_range().expect("it is in the file");
    let start = usize::try_from(start).expect("a small file");
    let end = start + usize::try_from(length).expect("a small file");
    (start..end, OBJECT.get(start..end).expect("inside"))
}

/// The object with some words of its type section replaced.
fn changed_types(from: &[u32], to: &[u32]) -> Vec<u8> {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (from, to): (Vec<u8>, Vec<u8>) = (bytes(from), bytes(to));
    changed_within(section(".BTF").0, &from, &to)
}

/// Number of the type that a property of a table's definition points to.
fn property(table: &str, property: &str) -> u32 {
    let types = Types::parse(section(".BTF").1).expect("types");
    for variable in types.section(SECTION) {
        let Type::Variable(name, definition) = types.get(variable).expect("a type") else {
            continue;
        };
        let Type::Struct { fields, .. } = types.get(*definition).expect("a type") else { continue };
        for (field, of, _) in fields {
            if let (true, true, Type::Pointer(target)) =
                (*name == table, *field == property, types.get(*of).expect("a type"))
            {
                return *target;
            }
        }
    }
    unreachable!("no {property} of {table}")
}

/// Word 1 of a type of this kind without members.
const fn kind(number: u32) -> u32 {
    number << 24
}

const POINTER: u32 = 2;
const ARRAY: u32 = 3;

fn call(helper: i32) -> [u8; 8] {
    let [a, b, c, d] = helper.to_le_bytes();
    [0x85, 0, 0, 0, a, b, c, d]
}

#[test]
fn the_committed_object_passes() {
    check(OBJECT).expect("it only does what it may");
    assert_ne!(sha256(), [0; 32]);
}

#[test]
fn a_helper_that_could_move_packet_bytes_is_refused() {
    /// `BPF_FUNC_perf_event_output`, `BPF_FUNC_redirect`, `BPF_FUNC_xdp_adjust_head`, `BPF_FUNC_xdp_adjust_tail`,
    /// `BPF_FUNC_redirect_map`, `BPF_FUNC_xdp_output`, `BPF_FUNC_ringbuf_output`, `BPF_FUNC_xdp_load_bytes`,
    /// `BPF_FUNC_xdp_store_bytes`, `BPF_FUNC_map_update_elem`, `BPF_FUNC_trace_printk`, `BPF_FUNC_tail_call`.
    const MOVERS: [i32; 12] = [25, 23, 44, 65, 51, 121, 130, 189, 190, 2, 6, 12];
    for mover in MOVERS {
        let object = changed(&call(GET_SMP_PROCESSOR_ID), &call(mover));
        let refused = check(&object).expect_err("not on the list");
        assert!(
            matches!(&refused, ObjectError::Helper { helper, .. } if *helper == mover),
            "{refused}"
        );
    }
}

#[test]
fn a_kernel_function_or_a_call_by_register_is_refused() {
    let mut kernel_function = call(1);
    kernel_function[1] = 2 << 4;
    let mut by_register = call(0);
    by_register[0] = 0x8d;
    for changed_call in [kernel_function, by_register] {
        let object = changed(&call(GET_SMP_PROCESSOR_ID), &changed_call);
        assert!(matches!(check(&object), Err(ObjectError::KernelFunction { .. })));
    }
}

#[test]
fn another_kind_of_table_is_refused() {
    // The kind is the length of an array type; 27 is `BPF_MAP_TYPE_RINGBUF`.
    let types = Types::parse(section(".BTF").1).expect("types");
    let number = property("LOG", "type");
    let Type::Array(element, 2) = types.get(number).expect("a type") else {
        unreachable!("an array of two says BPF_MAP_TYPE_ARRAY")
    };
    let (_, btf) = section(".BTF");
    let record = btf.as_chunks::<4>().0.windows(6).find_map(|words| {
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let found = words.get(1) == Some(&kind(ARRAY))
            && words.get(3) == Some(element)
            && words.get(5) == Some(&2);
        found.then_some(words)
    });
    let from = record.expect("it stands there");
    let mut to = from.clone();
    if let Some(length) = to.last_mut() {
        *length = 27;
    }
    let refused = check(&changed_types(&from, &to)).expect_err("not on the list");
    assert_eq!(
        refused.to_string(),
        "table `COARSE` has kind 27, the list has 2",
        "all tables share the type; the first is named"
    );
}

#[test]
fn a_table_of_another_name_is_refused() {
    let object = changed(b"OUTER_IDENTITIES\0", b"OUTER_IDENTIFIED\0");
    let refused = check(&object).expect_err("not on the list");
    assert_eq!(refused, ObjectError::TableUnknown("OUTER_IDENTIFIED".to_owned()));
}

#[test]
fn a_table_that_keeps_bytes_in_a_row_is_refused() {
    // The only array of bytes in the object is the text of its licence: let a table be made of that.
    let types = Types::parse(section(".BTF").1).expect("types");
    let bytes = (1..u32::MAX).find(|number| {
        let Type::Array(element, 18) = types.get(*number).expect("found before the end") else {
            return false;
        };
        matches!(types.get(*element), Ok(Type::Integer { bytes: 1, .. }))
    });
    let words = property("OUTER_IDENTITIES", "value");
    let pointer = |to| [0, kind(POINTER), to];
    let object = changed_types(&pointer(words), &pointer(bytes.expect("the licence has a type")));
    let refused = check(&object).expect_err("bytes in a row");
    assert_eq!(
        refused.to_string(),
        "table `OUTER_IDENTITIES` keeps 18 single bytes in a row in `entry`"
    );
}

#[test]
fn a_field_of_another_name_size_or_place_is_refused() {
    let renamed = changed_within(section(".BTF").0, b"\0last_and_syn\0", b"\0last_and_xyz\0");
    let refused = check(&renamed).expect_err("another field");
    assert!(
        refused.to_string().contains("has this field in `entry.")
            && refused.to_string().ends_with("last_and_xyz`, the list has last_and_syn"),
        "{refused}"
    );
    // A table of slots made of coarse slots: as large, other fields.
    let pointer = |to| [0, kind(POINTER), to];
    let (slot, coarse) = (property("LOG", "value"), property("COARSE", "value"));
    let refused = check(&changed_types(&pointer(slot), &pointer(coarse))).expect_err("others");
    assert!(matches!(&refused, ObjectError::Layout { table, .. } if table == "LOG"), "{refused}");
}

#[test]
fn the_program_that_copies_payload_is_refused() {
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    const LEAK: &Aligned<[u8]> =
        &Aligned(*include_bytes!("../../../../sensor-ebpf/prebuilt/leak.bpf.o"));
    let refused = check(&LEAK.0).expect_err("it keeps what is behind the transport header");
    assert_eq!(refused.to_string(), "table `PAYLOAD` keeps 64 single bytes in a row in `entry`");
    // Were the table called, and made, as one of ours, the program itself would still be one too many.
    let elf: ElfFile64<'_> = ElfFile64::parse(&LEAK.0).expect("an ELF file");
    let refused = super::check_programs(&elf).expect_err("its program is not on the list");
    assert!(
        matches!(&refused, ObjectError::Program { program, .. } if program == "leak_drop"),
        "{refused}"
    );
}

#[test]
fn an_unknown_program_or_section_is_refused() {
    let refused = check(&changed(b"floor_drop\0", b"floor_copy\0")).expect_err("not on the list");
    assert_eq!(
        refused.to_string(),
        "section `xdp` has program `floor_copy`, which is not on the list"
    );
    // What the loader would make memory of that programs can write.
    let refused = check(&changed(b"\0license\0", b"\0.data.x\0")).expect_err("not on the list");
    assert_eq!(refused, ObjectError::Section(".data.x".to_owned()));
    // The older way to define tables, which says nothing of what they are made of.
    let refused = check(&changed(b"\0.maps\0", b"\0maps\0\0")).expect_err("not on the list");
    assert_eq!(refused, ObjectError::Section("maps".to_owned()));
}

#[test]
fn of_an_entry_nothing_is_a_row_of_bytes() {
    fn look(shape: &Shape) {
        match shape {
            Shape::Integer(_) => {}
            Shape::Array(of, _) => {
                assert_ne!(**of, Shape::Integer(1), "single bytes in a row could be payload");
                look(of);
            }
            Shape::Struct(_, fields) => fields.iter().for_each(|field| look(field.shape)),
        }
    }
    for (_, shape) in &TABLES {
        look(shape);
    }
}

#[test]
fn what_is_no_object_is_an_error() {
    assert!(matches!(check(b"\x7fELF"), Err(ObjectError::Unreadable(_))));
    assert!(matches!(check(&[]), Err(ObjectError::Unreadable(_))));
    let cut = OBJECT.get(..OBJECT.len() / 2).expect("inside");
    assert!(check(cut).is_err());
}

#[test]
fn damaged_types_never_panic() {
    let (range, btf) = section(".BTF");
    for at in 0..btf.len() {
        let mut object = OBJECT.to_vec();
        if let Some(byte) = object.get_mut(range.start + at) {
            *byte ^= 0xff;
        }
        // Damage in names of functions passes; everything else is an error with a text.
        if let Err(error) = check(&object) {
            assert!(!error.to_string().is_empty());
        }
    }
    for length in 0..btf.len() {
        assert!(Types::parse(btf.get(..length).expect("inside")).is_err());
    }
}
