use super::formats::{NAMES, made};
use super::mix::Mix;
use super::{Samples, table};

/// Sizes only: times are the bench's business.
#[test]
fn rows_are_complete_and_ours_is_the_smallest_by_far() {
    let records = Mix::new(1).records(8_192);
    let mut figures = Vec::new();
    for name in NAMES {
        let mut samples = Samples::default();
        samples.take(made(name).expect("a row").as_mut(), &records).expect(name);
        figures.push(samples.figure(name));
    }
    let text = table::json(&figures).expect("numbers");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    let bytes = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name).expect("a row of that name");
        assert!(row["encode_ns"].is_f64() && row["decode_ns"].is_f64(), "{row}");
        row["bytes_per_flow"].as_f64().expect("a number")
    };
    let ours = bytes("spanwatch");
    assert!(ours <= 15.0, "{text}");
    assert!(ours <= 0.65 * bytes("arrow-ipc+zstd1"), "{text}");
    assert!(ours <= 0.4 * bytes("json+zstd3"), "{text}");
    assert!(bytes("ipfix+zstd3") > ours && bytes("json-community-id+zstd3") > ours, "{text}");
}
