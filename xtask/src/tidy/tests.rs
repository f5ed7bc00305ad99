use std::path::Path;

use super::{dependencies, sources};

fn whats(breaches: &[super::Breach]) -> Vec<String> {
    breaches.iter().map(|breach| format!("{}: {}", breach.place, breach.what)).collect()
}

#[test]
fn a_clean_file_has_no_breach() {
    let text = "//! In: nothing. Out: nothing.\n\nfn main() {}\n";
    assert!(sources::rust(Path::new("a.rs"), text).is_empty());
    assert!(sources::places(Path::new("a.rs"), "see docs/home/page and $OUT/work/x").is_empty());
}

#[test]
fn each_breach_names_file_and_line() {
    let text = format!("fn main() {{}}\n// {}{} later\n", "TO", "DO");
    let found = whats(&sources::rust(Path::new("a.rs"), &text));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a.rs:1: "), "{found:?}");
    assert!(found[1].starts_with("a.rs:2: "), "{found:?}");
    let place = format!("see {}{}x/y", "/ro", "ot/");
    assert_eq!(sources::places(Path::new("b.md"), &place).len(), 1);
}

#[test]
fn too_long_a_file_is_a_breach() {
    let text = format!("//! x\n{}", "\n".repeat(800));
    assert_eq!(whats(&sources::rust(Path::new("a.rs"), &text)), ["a.rs: 801 lines, more than 800"]);
}

#[test]
fn the_table_is_compared_with_what_cargo_says() {
    let written = dependencies::table(
        "text\n\n| room | takes | may import |\n|---|---|---|\n| `a` | x | `b`, `c` |\n| `b` | y | nothing |\n",
    );
    let real = [("a", vec!["b"]), ("b", vec!["c"])]
        .into_iter()
        .map(|(room, imports)| (room.to_owned(), imports.into_iter().map(str::to_owned).collect()))
        .collect();
    let found = whats(&dependencies::compare(&written, &real));
    assert_eq!(
        found,
        ["b/Cargo.toml: imports `c`, which the table in ARCHITECTURE.md does not allow"]
    );
}
