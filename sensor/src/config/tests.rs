//! The default file, and what a wrong file is told.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};

use super::Config;

fn rejected(text: &str, expected: &Expect) {
    let error = Config::parse(text, Path::new("sensor.toml")).expect_err("a bad file is refused");
    expected.assert_eq(&error.to_string());
}

#[test]
fn default_file_reads_back_as_the_defaults() {
    let text = Config::default().to_documented_toml();
    let read = Config::parse(&text, Path::new("default")).expect("the default file is valid");
    assert_eq!(read, Config::default());
}

#[test]
fn an_empty_file_is_the_defaults() {
    let read = Config::parse("", Path::new("empty")).expect("every key has a default");
    assert_eq!(read, Config::default());
}

#[test]
fn changed_values_are_printed_and_read_back() {
    let text =
        "[capture]\ninterfaces = [\"span0\"]\ndrain_cpu = 3\n[output]\nkinds = [\"uplink\"]\n";
    let read = Config::parse(text, Path::new("some")).expect("a valid file");
    let again = Config::parse(&read.to_documented_toml(), Path::new("some"));
    assert_eq!(again.expect("what is printed is valid"), read);
}

#[test]
fn errors_name_file_line_key_and_range() {
    rejected(
        "[capture]\n\nepoch_ms = 5\n",
        &expect![
            "sensor.toml, line 3, key `capture.epoch_ms`: invalid value: integer `5`, expected a number from 10 to 10000"
        ],
    );
    rejected(
        "[flows]\nlinger_ms = -1\n",
        &expect![
            "sensor.toml, line 2, key `flows.linger_ms`: invalid value: integer `-1`, expected a number from 0 to 60000"
        ],
    );
    rejected(
        "[flows]\nidle_timeout_ms = \"soon\"\n",
        &expect![[
            r#"sensor.toml, line 2, key `flows.idle_timeout_ms`: invalid type: string "soon", expected a number from 100 to 3600000"#
        ]],
    );
    rejected(
        "[capture]\nepoch = 250\n",
        &expect![
            "sensor.toml, line 2, key `capture.epoch`: unknown field `epoch`, expected one of `interfaces`, `after`, `mode`, `epoch_ms`, `drain_cpu`"
        ],
    );
    rejected(
        "[captures]\nepoch_ms = 250\n",
        &expect![
            "sensor.toml, line 1, section `captures`: unknown field `captures`, expected one of `capture`, `flows`, `output`, `uplink`"
        ],
    );
    rejected(
        "[output]\nkinds = [\"jsn\"]\n",
        &expect![
            "sensor.toml, line 2, key `output.kinds`: unknown variant `jsn`, expected one of `json`, `uplink`, `null`"
        ],
    );
    rejected(
        "[output\nkinds = 1\n",
        &expect!["sensor.toml, line 1, section `output`: unclosed table, expected `]`"],
    );
    rejected(
        "spool = 1\n",
        &expect![
            "sensor.toml, line 1, key `spool`: unknown field `spool`, expected one of `capture`, `flows`, `output`, `uplink`"
        ],
    );
}

#[test]
fn errors_name_the_key_of_a_list_and_what_makes_no_sense() {
    rejected(
        "# outputs\n\n[output]\nkinds = [\n  \"json\",\n  \"foo\",\n]\n",
        &expect![
            "sensor.toml, line 6, key `output.kinds`: unknown variant `foo`, expected one of `json`, `uplink`, `null`"
        ],
    );
    rejected(
        "[output]\n\nkinds = []\n",
        &expect![
            "sensor.toml, line 3, key `output.kinds`: no output, expected at least one of `json`, `uplink`, `null`"
        ],
    );
    rejected(
        "[uplink]\nstate_dir = \"\"\n",
        &expect![
            "sensor.toml, line 2, key `uplink.state_dir`: empty, expected the path of a folder"
        ],
    );
    rejected(
        "capture = 3\n",
        &expect![
            "sensor.toml, line 1, key `capture`: invalid type: integer `3`, expected a section with keys"
        ],
    );
}

#[test]
fn a_file_that_is_no_text_or_has_no_end_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sensor.toml");
    fs::write(&file, b"[capture]\n\nmode = \"\xff\"\n").expect("the folder takes a file");
    let error = Config::read(&file).expect_err("not UTF-8").to_string();
    let told = "sensor.toml, line 3, key `capture.mode`: byte 0xff is not UTF-8 text";
    assert!(error.ends_with(told), "{error}");
    let endless = Config::read(Path::new("/dev/zero")).expect_err("without an end");
    let cause = std::error::Error::source(&endless).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("it has more than 1048576 bytes"));
}

#[test]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
fn default_file() {
    expect![[r##"
        # What is captured, and how the kernel's flow cache is emptied.
        [capture]
        # Interfaces to listen on; the two of an optical TAP are one sensor.
        interfaces = []
        # What happens to a counted frame: "auto" (dropped on an interface without addresses,
        # passed on otherwise), "drop" or "pass".
        after = "auto"
        # How the program is attached: "auto", "native" or "generic".
        mode = "auto"
        # Time between two drains of the kernel's cache, milliseconds: 10 to 10000.
        epoch_ms = 250
        # Processor that drains; unset: any.
        #drain_cpu =

        # How packets become flows.
        [flows]
        # A flow that lasts longer is reported in parts of this length, milliseconds: 1000 to
        # 3600000.
        active_timeout_ms = 60000
        # A flow without a packet for this long has ended, milliseconds: 100 to 3600000.
        idle_timeout_ms = 15000
        # How long a closed TCP connection is kept for late packets, milliseconds: 0 to 60000.
        linger_ms = 2000
        # Flows held at once, about 250 bytes each: 1 to 100000000. The one nearest to its end
        # goes when the table is full; it is reported, with that reason.
        flows_open_max = 1000000
        # What of VLAN tags and tunnels keeps flows with equal addresses apart: "everything",
        # "conversation" (not MPLS labels and GTP-U endpoints, which differ by direction) or
        # "nothing" (for a mirror port that tags one direction only).
        apart_by = "conversation"
        # Processor that aggregates; unset: any.
        #aggregate_cpu =

        # Where the records go.
        [output]
        # Any of "json", "uplink", "null".
        kinds = ["json"]
        # File that "json" writes; unset: standard output.
        #json_file =

        # The link to the backend.
        [uplink]
        # Folder of the sensor's identity and of its spool, as `enroll` made it.
        state_dir = "/var/lib/spanwatch-sensor"
        # Size of the spool, bytes: 1048576 to 1099511627776. The oldest batch goes when it is
        # full.
        spool_bytes_max = 1073741824
        # Records of one batch: 1 to 65536.
        batch_records_max = 8192
        # Longest time before a batch is sealed, milliseconds: 10 to 60000.
        batch_interval_ms = 1000
        # How long a stopping sensor waits for the backend's acknowledgements, milliseconds: 0 to
        # 600000. What is not acknowledged by then stays in the spool for the next start.
        shutdown_grace_ms = 10000
    "##]]
    .assert_eq(&Config::default().to_documented_toml());
}
