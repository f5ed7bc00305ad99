//! Every mistake in the file is told with file, line, key and what is allowed.

use std::path::Path;

use super::{Config, default_file, is_host_and_port};

fn message(text: &str) -> String {
    match Config::parse(Path::new("backend.toml"), text) {
        Ok(config) => format!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_file_that_init_writes_is_the_default() {
    let listen = "127.0.0.1:7443".parse().expect("an address");
    let text = default_file(listen, "police.example:7443");
    let config = Config::parse(Path::new("backend.toml"), &text).expect("the default file is good");
    assert_eq!(config.listen, listen);
    assert_eq!(config.address, "police.example:7443");
    // What the comments show is what is used when they stay comments.
    let shown =
        text.replace("# group_", "group_").replace("# quiet", "quiet").replace("# mem", "mem");
    let shown = shown.replace("# certificate_", "certificate_").replace("# renewal_", "renewal_");
    let shown =
        Config::parse(Path::new("backend.toml"), &shown).expect("the shown defaults are good");
    assert_eq!(format!("{config:?}"), format!("{shown:?}"));
}

#[test]
fn mistakes_name_file_line_key_and_range() {
    let good = "listen = \"127.0.0.1:1\"\naddress = \"a:1\"\n";
    let cases = [
        (format!("{good}surprise = 1\n"), vec!["backend.toml", "line 3", "surprise"]),
        (format!("{good}[ingest]\nquiet = 1\n"), vec!["line 4", "quiet", "quiet_ms"]),
        (
            format!("{good}[ingest]\nquiet_ms = 0\n"),
            vec!["backend.toml:4: ingest.quiet_ms is 0, allowed is 1 to 10000"],
        ),
        (
            format!("{good}[ingest]\nquiet_ms = \"x\"\n"),
            vec!["backend.toml:4: ingest.quiet_ms is \"x\", allowed is 1 to 10000"],
        ),
        (format!("{good}[ingest]\nquiet_ms = -1\n"), vec!["backend.toml:4", "is -1", "1 to 10000"]),
        (format!("{good}[query]\nmemory_bytes_max = 1e9\n"), vec!["query.memory_bytes_max", ":4"]),
        (
            format!("{good}[identity]\ncertificate_days = 0\n"),
            vec!["backend.toml:4: identity.certificate_days is 0, allowed is 1 to 397"],
        ),
        (good.replace("127.0.0.1:1", "here"), vec!["backend.toml:1: listen is \"here\""]),
        (good.replace("a:1", "a"), vec!["backend.toml:2: address is \"a\""]),
        ("listen = \"127.0.0.1:1\"\n".to_owned(), vec!["address"]),
        ("listen = [".to_owned(), vec!["backend.toml", "line 1"]),
    ];
    for (text, parts) in cases {
        let message = message(&text);
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn an_address_has_a_host_and_a_port() {
    for good in ["a:1", "[::1]:443", "police.example:65535", "192.0.2.1:7443"] {
        assert!(is_host_and_port(good), "{good}");
    }
    let long = format!("{}:1", "a".repeat(254));
    let odd = ["::1:443", "[::1:443", "a b:1", "a\"b:1", "a\nb:1", "ä:1", "[a]:1", &long];
    for bad in ["a", ":1", "a:0", "a:65536", "a:", ""].into_iter().chain(odd) {
        assert!(!is_host_and_port(bad), "{bad}");
    }
}
