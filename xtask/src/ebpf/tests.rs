//! The committed objects cannot drift from their sources.

use super::compile::OBJECTS;
use super::manifest::{Manifest, sha256};
use super::prebuilt;
use crate::shell;

#[test]
fn the_committed_objects_are_what_their_sources_built() {
    let workspace = shell::workspace();
    let manifest = Manifest::load(&prebuilt(&workspace)).expect("a committed manifest");
    if let Err(error) = manifest.check(&workspace) {
        panic!("{error:#}");
    }
}

#[test]
fn the_committed_objects_name_no_folder_of_the_machine_that_built_them() {
    for file in OBJECTS.map(|object| object.file) {
        let object = std::fs::read(prebuilt(&shell::workspace()).join(file)).expect("an object");
        // In halves, so that this file names none of them either.
        for halves in [
            ["/ho", "me/"],
            ["/ro", "ot/"],
            ["/wo", "rk/"],
            ["/t", "mp/"],
            [".car", "go"],
            ["crates", ".io"],
        ] {
            let folder = halves.concat();
            let bytes = folder.as_bytes();
            let names = object.windows(bytes.len()).any(|window| window == bytes);
            assert!(!names, "{file} names {folder}");
        }
    }
}

#[test]
fn a_changed_object_is_noticed() {
    for file in OBJECTS.map(|object| object.file) {
        let workspace = shell::workspace();
        let copy = tempfile::tempdir().expect("a temporary folder");
        super::compile::copy_workspace(&workspace, copy.path()).expect("a copy");
        let object = prebuilt(copy.path()).join(file);
        let mut bytes = std::fs::read(&object).expect("an object");
        bytes.push(0);
        std::fs::write(&object, bytes).expect("the copy can be changed");
        let manifest = Manifest::load(&prebuilt(copy.path())).expect("a committed manifest");
        let error = manifest.check(copy.path()).expect_err("the object differs");
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn a_changed_source_is_noticed() {
    let workspace = shell::workspace();
    let copy = tempfile::tempdir().expect("a temporary folder");
    super::compile::copy_workspace(&workspace, copy.path()).expect("a copy");
    let manifest = Manifest::load(&prebuilt(copy.path())).expect("a committed manifest");
    let source = copy.path().join("flow/src/slot.rs");
    let mut text = std::fs::read_to_string(&source).expect("a source");
    text.push_str("// One line more.\n");
    std::fs::write(&source, text).expect("the copy can be changed");
    let error = manifest.check(copy.path()).expect_err("the source differs");
    assert!(error.to_string().contains("flow/src/slot.rs"), "{error}");
}

#[test]
fn hashes_are_those_of_the_standard() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sha256(b""), empty);
}
