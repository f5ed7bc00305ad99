//! The program as a person meets it: exit codes, and errors in one line that say what to do.

use std::fs;
use std::process::Command;

/// Exit code, standard output, and standard error of the program.
fn sensor(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spanwatch-sensor"))
        .args(arguments)
        .output()
        .expect("the program was built for this test");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_cannot_be_used_is_exit_code_2() {
    for (arguments, told) in [
        (&["run"][..], "error: no interface is given: use --interface NAME, or set "),
        (&["run", "--check-config"], "error: no interface is given: use --interface NAME"),
        (
            &["replay", "x.pcap", "--output", "null", "--out", "x.json"],
            "error: --out is the file of --output json, csv or parquet, none of which is among ",
        ),
        (&["replay", "x.pcap", "--output", "parquet"], "error: output `parquet` has no file: "),
        (&["replay", "x.pcap", "--output", "ipfix"], "error: output `ipfix` has no collector: "),
        (
            &["replay", "x.pcap", "--output", "ipfix", "--collector", "127.0.0.1:1"],
            "error: invalid value '127.0.0.1:1' for '--collector <URL>': `127.0.0.1:1` is no ",
        ),
        (&["deliver", "--within-ms", "soon"], "error: invalid value 'soon' for '--within-ms <MS>'"),
        (&["--check-config", "--config", "/dev/null/x"], "error: cannot read the configuration "),
    ] {
        let (code, _, error) = sensor(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with(told), "{arguments:?}: {error}");
    }
    let (code, out, _) = sensor(&["replay", "x.pcap", "--check-config"]);
    assert_eq!((code, out.as_str()), (Some(0), "the configuration can be used\n"));
}

#[test]
fn what_fails_is_exit_code_1_and_says_its_cause_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let at = state.display().to_string();
    let (code, _, error) = sensor(&["deliver", "--state-dir", &at]);
    assert_eq!(code, Some(1));
    assert!(error.contains("this sensor is not enrolled; use `enroll`"), "{error}");
    assert!(!state.exists(), "a mistyped folder is not made");

    // A file stands where the folder should be.
    fs::write(&state, "").expect("the folder takes a file");
    let (code, _, error) = sensor(&["enroll", "SW1-00000", "--state-dir", &at]);
    assert_eq!(code, Some(1));
    assert!(error.contains("the enrolment code is incomplete or too long"), "{error}");
    let (code, _, error) = sensor(&["deliver", "--state-dir", &at]);
    assert_eq!(code, Some(1));
    assert_eq!(error.matches("(os error").count(), 1, "{error}");
}

#[test]
fn balance_says_by_its_exit_code_whether_the_books_close() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("summary.json");
    let write = |in_flows: u64| {
        let text = format!(
            r#"{{"command": "replay", "files": [{{"path": "x.pcap"}}], "finished": true,
            "updated_time": "2026-11-21T15:00:00.000Z", "frames_seen": 9, "packets_ip": 9,
            "packets_not_ip": 0, "packets_malformed": 0, "not_ip": {{}}, "malformed": {{}},
            "packets_in_flows": {in_flows}, "packets_folded": 0, "packets_in_records": 9}}"#
        );
        fs::write(&file, text).expect("the folder takes a file");
    };
    let path = file.display().to_string();
    write(9);
    let (code, out, _) = sensor(&["balance", &path]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("packets   9 IP = 9 in flows + 0 folded\n"), "{out}");
    write(8);
    let (code, out, _) = sensor(&["balance", &path]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("packets   9 IP ≠ 8 in flows + 0 folded\n"), "{out}");
    let (code, out, _) = sensor(&["balance", "--json", &path]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\"balanced\": false"), "{out}");
    // Without a name it is the running sensor's, in the state folder.
    let (code, out, _) = sensor(&["balance", "--state-dir", &folder.path().display().to_string()]);
    assert_eq!(code, Some(1), "{out}");
    let (code, _, error) = sensor(&["balance", "--state-dir", "/dev/null"]);
    assert_eq!(code, Some(2));
    let told = "error: cannot read the summary /dev/null/summary.json: Not a directory";
    assert!(error.starts_with(told), "{error}");
    fs::write(&file, "[]").expect("the folder takes a file");
    let (code, _, error) = sensor(&["balance", &path]);
    assert_eq!(code, Some(2));
    assert!(error.contains("summary.json is no summary of a sensor"), "{error}");
}
