//! The default file, and what a wrong file is told.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};

use super::Config;
use crate::capture::TableSizes;

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
fn ranges_that_cannot_be_used_are_named_with_their_line() {
    rejected(
        "[privacy]\nown_prefixes = [\n    \"192.0.2.0/24\",\n    \"192.0.2.7/24\",\n]\n",
        &expect![
            "sensor.toml, line 4, key `privacy.own_prefixes`: `192.0.2.7/24` has bits set behind its length; `192.0.2.0/24` would be that range"
        ],
    );
    rejected(
        "[privacy]\ntrusted_prefixes = [\"0.0.0.0/0\"]\n",
        &expect![
            "sensor.toml, line 2, key `privacy.trusted_prefixes`: `0.0.0.0/0` is every address there is"
        ],
    );
    rejected(
        "[privacy]\nown_prefixes = [\"the office\"]\n",
        &expect![[
            r#"sensor.toml, line 2, key `privacy.own_prefixes`: `the office` is no range of addresses, expected such as "192.0.2.0/24", "2001:db8::/32" or one address"#
        ]],
    );
    rejected(
        "[privacy]\nown_prefixes = [\"192.0.2.0/24\"]\npublic_servers = [\n  \"192.0.2.80\",\n  \"198.51.100.80\",\n]\n",
        &expect![
            "sensor.toml, line 5, key `privacy.public_servers`: `198.51.100.80/32` lies in none of own_prefixes"
        ],
    );
    rejected(
        "[privacy]\npublic_servers = [\"10.0.0.0/8\"]\n",
        &expect![
            "sensor.toml, line 2, key `privacy.public_servers`: they are more than half of `10.0.0.0/8` in own_prefixes, which leaves too little for pseudonyms"
        ],
    );
    rejected(
        "[privacy]\nkey_epoch_days = 0\n",
        &expect![
            "sensor.toml, line 2, key `privacy.key_epoch_days`: invalid value: integer `0`, expected a number from 1 to 3650"
        ],
    );
    let many = vec!["\"192.0.2.1\""; 4_097].join(", ");
    rejected(
        &format!("[privacy]\ntrusted_prefixes = [{many}]\n"),
        &expect![
            "sensor.toml, line 2, key `privacy.trusted_prefixes`: 4097 ranges, expected at most 4096"
        ],
    );
}

#[test]
fn an_empty_list_of_own_ranges_is_not_the_default_one() {
    let read = |text: &str| Config::parse(text, Path::new("some")).expect("a valid file");
    assert!(read("[privacy]\nown_prefixes = []\n").privacy.own_prefixes.is_empty());
    let overlapping = read("[privacy]\nown_prefixes = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\n");
    assert_eq!(overlapping.privacy.own_prefixes.len(), 2);
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
            "sensor.toml, line 2, key `capture.epoch`: unknown field `epoch`, expected one of `interfaces`, `after`, `mode`, `epoch_ms`, `epoch_ms_max`, `sets`, `log_slots`, `deduplicate`, `drain_cpu`"
        ],
    );
    rejected(
        "[captures]\nepoch_ms = 250\n",
        &expect![
            "sensor.toml, line 1, section `captures`: unknown field `captures`, expected one of `capture`, `flows`, `output`, `uplink`, `privacy`, `metrics`"
        ],
    );
    rejected(
        "[output]\nkinds = [\"jsn\"]\n",
        &expect![
            "sensor.toml, line 2, key `output.kinds`: unknown variant `jsn`, expected one of `json`, `csv`, `parquet`, `ipfix`, `uplink`, `null`"
        ],
    );
    rejected(
        "[output\nkinds = 1\n",
        &expect!["sensor.toml, line 1, section `output`: unclosed table, expected `]`"],
    );
    rejected(
        "spool = 1\n",
        &expect![
            "sensor.toml, line 1, key `spool`: unknown field `spool`, expected one of `capture`, `flows`, `output`, `uplink`, `privacy`, `metrics`"
        ],
    );
}

#[test]
fn sizes_of_the_kernel_tables_have_ranges() {
    for (sets, told) in [(0, "0"), (3, "3"), (131_072, "131072")] {
        let error = Config::parse(&format!("[capture]\nsets = {sets}\n"), Path::new("sensor.toml"))
            .expect_err("out of range");
        let expected = format!(
            "sensor.toml, line 2, key `capture.sets`: invalid value: integer `{told}`, expected a \
             power of two from 1 to 65536"
        );
        assert_eq!(error.to_string(), expected);
    }
    rejected(
        "[capture]\nlog_slots = 0\n",
        &expect![
            "sensor.toml, line 2, key `capture.log_slots`: invalid value: integer `0`, expected a number from 1 to 1048576"
        ],
    );
    let text = "[capture]\nsets = 65536\nlog_slots = 1048576\n";
    let sizes = Config::parse(text, Path::new("largest")).expect("allowed").table_sizes();
    assert_eq!((sizes.sets, sizes.log_slots), (TableSizes::SETS_MAX, TableSizes::LOG_SLOTS_MAX));
    let usual = Config::default().table_sizes();
    assert_eq!(usual, TableSizes::default());
}

#[test]
fn metrics_are_for_this_machine_unless_it_is_said() {
    rejected(
        "[metrics]\nallow_remote = false\nlisten = \"0.0.0.0:9464\"\n",
        &expect![[
            r#"sensor.toml, line 3, key `metrics.listen`: other machines reach this address, expected one of this machine only, such as "127.0.0.1:9464", or allow_remote = true"#
        ]],
    );
    rejected(
        "[metrics]\nlisten = \"localhost:9464\"\n",
        &expect![[
            r#"sensor.toml, line 2, key `metrics.listen`: `localhost:9464` is no address and port, expected something like "127.0.0.1:9464""#
        ]],
    );
    for listen in ["127.0.0.1:9464", "[::1]:9464", "[::ffff:127.0.0.1]:1", "127.8.0.1:0"] {
        let text = format!("[metrics]\nlisten = \"{listen}\"\n");
        let read = Config::parse(&text, Path::new("local")).expect("only this machine");
        assert!(read.metrics.listen.is_some(), "{listen}");
    }
    let text = "[metrics]\nlisten = \"[::]:9464\"\nallow_remote = true\n";
    Config::parse(text, Path::new("remote")).expect("it was said");
}

#[test]
fn errors_name_the_key_of_a_list_and_what_makes_no_sense() {
    rejected(
        "# outputs\n\n[output]\nkinds = [\n  \"json\",\n  \"foo\",\n]\n",
        &expect![
            "sensor.toml, line 6, key `output.kinds`: unknown variant `foo`, expected one of `json`, `csv`, `parquet`, `ipfix`, `uplink`, `null`"
        ],
    );
    rejected(
        "[output]\n\nkinds = []\n",
        &expect![
            "sensor.toml, line 3, key `output.kinds`: no output, expected at least one of `json`, `csv`, `parquet`, `ipfix`, `uplink`, `null`"
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
fn outputs_that_do_not_go_together_are_named() {
    use super::OutputKind::{Csv, Ipfix, Json, Null, Parquet};
    let with = |kinds: &[super::OutputKind], change: fn(&mut super::OutputConfig)| {
        let mut settings = Config::default().output;
        settings.kinds = kinds.to_vec();
        change(&mut settings);
        settings.check().map_or_else(|error| error.to_string(), |()| String::new())
    };
    let told = [
        with(&[Parquet], |_| {}),
        with(&[Ipfix], |_| {}),
        with(&[Json, Csv], |_| {}),
        with(&[Json, Parquet], |settings| {
            settings.json_file = Some("same".into());
            settings.parquet_file = Some("same".into());
        }),
        with(&[Csv], |settings| settings.rotate_ms = Some(super::Bounded::fixed::<1_000>())),
    ];
    let expected = [
        "output `parquet` has no file: use --out FILE, or set output.parquet_file",
        "output `ipfix` has no collector: use --collector udp://HOST:PORT or tcp://HOST:PORT, or set output.ipfix_collector",
        "outputs `json` and `csv` would both write to standard output: give one of them a file",
        "outputs `json` and `parquet` would both write same",
        "output `csv` goes to standard output, which cannot be rotated: give it a file, or leave output.rotate_bytes and output.rotate_ms out",
    ];
    assert_eq!(told, expected);
    assert_eq!(with(&[Json, Null, Csv], |settings| settings.csv_file = Some("a".into())), "");
}

#[test]
fn the_file_of_a_flag_is_that_of_the_only_output_with_one() {
    use super::OutputKind::{Csv, Json, Null, Parquet, Uplink};
    for (kinds, expected) in [
        (vec![Json, Uplink], "Ok(()) json"),
        (vec![Csv], "Ok(()) csv"),
        (vec![Null, Parquet], "Ok(()) parquet"),
        (vec![Null], "Err(NoFileOutput)"),
        (vec![Csv, Parquet], "Err(ManyFileOutputs)"),
    ] {
        let mut settings = Config::default().output;
        settings.kinds = kinds;
        let set = settings.set_file(Path::new("file"));
        let files = [
            ("json", &settings.json_file),
            ("csv", &settings.csv_file),
            ("parquet", &settings.parquet_file),
        ];
        let name = files.iter().find(|(_, file)| file.is_some()).map_or("", |(name, _)| name);
        assert_eq!(format!("{set:?} {name}").trim_end(), expected);
    }
    let mut settings = Config::default().output;
    assert_eq!(settings.to_stdout(), Some("json"));
    settings.kinds = vec![Parquet];
    assert_eq!(settings.to_stdout(), None);
}

#[test]
fn a_collector_and_a_schema_are_read_and_checked() {
    let text = "[output]\nkinds = [\"ipfix\"]\nipfix_collector = \"tcp://[::1]:9995\"\n";
    let read = Config::parse(text, Path::new("some")).expect("a valid file");
    let again = Config::parse(&read.to_documented_toml(), Path::new("some"));
    assert_eq!(again.expect("what is printed is valid"), read);
    rejected(
        "[output]\nipfix_collector = \"127.0.0.1\"\n",
        &expect![
            "sensor.toml, line 2, key `output.ipfix_collector`: `127.0.0.1` is no collector, expected udp://HOST:PORT or tcp://HOST:PORT"
        ],
    );
    rejected(
        "[output]\njson_schema = \"elastic\"\n",
        &expect![
            "sensor.toml, line 2, key `output.json_schema`: unknown variant `elastic`, expected one of `native`, `ecs`, `zeek`"
        ],
    );
    rejected(
        "[output]\nrotate_bytes = 1\n",
        &expect![
            "sensor.toml, line 2, key `output.rotate_bytes`: invalid value: integer `1`, expected a number from 4096 to 1099511627776"
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
#[expect(clippy::too_many_lines, reason = "it is one file")]
fn default_file() {
    expect![[r#"
        # What is captured, and how the kernel's flow cache is emptied.
        [capture]
        # Interfaces to listen on; the two of an optical TAP are one sensor.
        interfaces = []
        # What happens to a counted frame: "auto" (dropped on an interface without addresses,
        # passed on otherwise), "drop" or "pass".
        after = "auto"
        # How the program is attached: "auto", "native" or "generic".
        mode = "auto"
        # Time between two drains of the kernel's cache, milliseconds: 10 to 10000. It is drained
        # earlier when a log is half full.
        epoch_ms = 250
        # The same while hardly anything comes: 10 to 10000; no less than the setting
        # above.
        epoch_ms_max = 1000
        # Size of the kernel's flow cache, sets of two flows for each processor: a power of two, 1
        # to 65536. 256 bytes each; 4096 fit into a second-level cache of 1 MiB.
        sets = 4096
        # Room for flows that a full cache puts out before it is drained, for each processor: 1 to
        # 1048576. 128 bytes each; 262144 hold 3 million new flows a second on one processor.
        # Without room, packets are counted in totals by source prefix, destination and port.
        log_slots = 262144
        # Whether a packet that comes again within 20 ms is counted once: for a mirror that copies
        # frames on their way in and out, or in several VLANs. docs/operating.md says what counts
        # as the same packet. Also for capture files.
        deduplicate = false
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
        # Flows held at once, about 220 bytes each: 1 to 100000000. The one nearest to its end
        # goes when the table is full; it is reported, with that reason.
        flows_open_max = 1000000
        # What of VLAN tags and tunnels keeps flows with equal addresses apart: "everything",
        # "conversation" (not MPLS labels and GTP-U endpoints, which differ by direction) or
        # "nothing" (for a mirror port that tags one direction only).
        apart_by = "conversation"
        # Processors that build the flows, with one thread and one part of the table each (a number
        # may stand here twice); empty: one thread, on any. At most 256.
        cpus = []

        # Where the records go.
        [output]
        # Any of "json", "csv", "parquet", "ipfix", "uplink", "null"; docs/outputs.md explains each.
        kinds = ["json"]
        # File that "json" writes; unset: standard output.
        #json_file =
        # What its lines look like: "native" and "ecs" (Elastic Common Schema) are JSON, "zeek" is
        # Zeek's conn.log.
        json_schema = "native"
        # File that "csv" writes; unset: standard output.
        #csv_file =
        # File that "parquet" writes. Until it is complete it is called ".partial".
        #parquet_file =
        # Records of one row group: 1024 to 1048576. They are held in memory, about 200 bytes each,
        # and written together.
        parquet_group_records = 65536
        # A file ends when it is so long, bytes: 4096 to 1099511627776; unset: never. With this or
        # the next setting, "flows.json" is a series: "flows.20260528T202640Z.000001.json" and so on.
        #rotate_bytes =
        # A file ends with its hour, day or other period of this length, milliseconds since the Unix
        # epoch: 1000 to 604800000; unset: never.
        #rotate_ms =
        # Complete files of a series that are kept: 1 to 1000000; the oldest are deleted. Unset: all.
        #files_max =
        # Collector that "ipfix" exports to: `udp://HOST:PORT` or `tcp://HOST:PORT`.
        #ipfix_collector =
        # Observation domain in every message, which tells this sensor from others: 0 to 4294967295.
        ipfix_domain = 1
        # Longest message, bytes: 512 to 65507. Over UDP it has to fit into a packet on the way there
        # (1452 on an Ethernet over IPv6).
        ipfix_message_bytes_max = 1400
        # Over UDP, how often templates are sent again, milliseconds: 1000 to 3600000.
        ipfix_template_ms = 60000
        # Over UDP, messages after which templates are sent again: 1 to 1000000.
        ipfix_template_messages = 1024

        # The link to the backend.
        [uplink]
        # Folder of the sensor's identity and of its spool, as `enroll` made it.
        state_dir = "/var/lib/spanwatch-sensor"
        # Size of the spool, bytes: 1048576 to 1099511627776. The oldest batch goes when it is
        # full.
        spool_bytes_max = 1073741824
        # Disk for batches that the backend has, so that `sent` can show every byte that left, bytes: 0
        # to 1099511627776. The oldest go when it is full; 0 keeps none.
        sent_bytes_max = 268435456
        # Records of one batch: 1 to 65536.
        batch_records_max = 8192
        # Longest time before a batch is sealed, milliseconds: 10 to 60000.
        batch_interval_ms = 1000
        # Most bytes a second that the link takes of the line, on average: 16384 to 12500000000; unset:
        # as many as there are. What is sent after an outage is held to it, too.
        #bandwidth_bytes_per_second_max =
        # How long a stopping sensor waits for the backend's acknowledgements, milliseconds: 0 to
        # 600000. What is not acknowledged by then stays in the spool for the next start.
        shutdown_grace_ms = 10000

        # What goes to the backend, and what stays at home; docs/privacy.md explains it. Other outputs have
        # everything as it was seen.
        [privacy]
        # The organisation's own ranges of addresses, such as "192.0.2.0/24": its public ones belong
        # here too, beside the private ones. Empty: everything is sent as it is.
        own_prefixes = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"]
        # Addresses and ranges of them whose addresses are public anyway, as those of servers: they
        # are sent as they are.
        public_servers = []
        # Flows with an end in these ranges are not sent.
        trusted_prefixes = []
        # Flows with both ends in own ranges, or one and a multicast or broadcast address: "keep" or
        # "send".
        internal_traffic = "keep"
        # Whether other own addresses are sent as pseudonyms. `spanwatch-sensor reveal` shows on this
        # machine whose they are.
        pseudonymise = true
        # Each key makes the pseudonyms for so many days: 1 to 3650.
        key_epoch_days = 30
        # Days that a key is kept after that, so that its pseudonyms can be revealed: 1 to 3650.
        keys_kept_days = 400

        # Counters for Prometheus, at /metrics; docs/metrics.md explains each.
        [metrics]
        # Address and port to serve them on, such as "127.0.0.1:9464"; unset: they are not served.
        #listen =
        # Whether that may be an address that other machines reach. There is no password and no
        # encryption: whoever reaches it can read how much traffic the organisation has.
        allow_remote = false
    "#]]
    .assert_eq(&Config::default().to_documented_toml());
}
