//! Questions are answered, anything else is refused, and answers have a bound.

use anyhow::Result;
use backend::query::{Format, Printed, QueryError, start};

use crate::lab::{Lab, batch, connection, odd_records, probe};

async fn filled() -> Result<Lab> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    running.commit(batch(1, 1, (0..20).map(connection).collect())).await?;
    running.commit(batch(1, 2, (0..5).map(probe).collect())).await?;
    running.stop().await?;
    Ok(lab)
}

async fn ask(
    lab: &Lab,
    sql: &str,
    format: Format,
    limit: Option<usize>,
) -> Result<(String, Printed)> {
    let lake = lab.folder.lake().await?;
    let mut out = Vec::new();
    let rows = start(&lake, &lab.limits(), sql).await?;
    let printed = rows.print(format, limit, &mut out).await?;
    Ok((String::from_utf8(out)?, printed))
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_readable_and_can_be_asked_for() -> Result<()> {
    let lab = filled().await?;
    let sql = "SELECT ip(initiator) AS who, count(DISTINCT responder_port) AS ports FROM flows \
               WHERE initiator = ip_bin('203.0.113.66') GROUP BY initiator";
    let (csv, printed) = ask(&lab, sql, Format::Csv, Some(10)).await?;
    assert_eq!(csv, "who,ports\n203.0.113.66,5\n");
    assert_eq!(printed, Printed { rows: 1, cut: false });
    let (json, _) = ask(&lab, sql, Format::Json, Some(10)).await?;
    assert_eq!(json, "[{\"who\":\"203.0.113.66\",\"ports\":5}]\n");
    let (table, _) = ask(&lab, sql, Format::Table, Some(10)).await?;
    assert!(table.contains("| 203.0.113.66 | 5     |"), "{table}");
    let (nothing, _) =
        ask(&lab, "SELECT 1 AS n FROM flows WHERE protocol = 99", Format::Json, None).await?;
    assert_eq!(nothing, "[]\n");
    let (header, _) =
        ask(&lab, "SELECT 1 AS n FROM flows WHERE protocol = 99", Format::Csv, None).await?;
    assert_eq!(header, "n\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_limit_are_cut_and_that_is_said() -> Result<()> {
    let lab = filled().await?;
    let sql = "SELECT position FROM flows ORDER BY sequence, position";
    for (limit, rows, cut) in [(Some(7), 7, true), (Some(25), 25, false), (None, 25, false)] {
        for format in [Format::Csv, Format::Json, Format::Table] {
            let (_, printed) = ask(&lab, sql, format, limit).await?;
            assert_eq!(printed, Printed { rows, cut }, "{limit:?} {format:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_queries_run() -> Result<()> {
    let lab = filled().await?;
    let lake = lab.folder.lake().await?;
    let target = lab.path().join("stolen.csv");
    let copy = format!("COPY flows TO '{}'", target.display());
    let refused = [
        "CREATE TABLE mine AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE flows",
        "INSERT INTO flows SELECT * FROM flows",
        "EXPLAIN ANALYZE INSERT INTO flows SELECT * FROM flows",
        "DELETE FROM flows",
        "UPDATE flows SET protocol = 1",
        "SET datafusion.execution.batch_size = 1",
        copy.as_str(),
    ];
    for sql in refused {
        match start(&lake, &lab.limits(), sql).await {
            Err(QueryError::Refused(_)) => {}
            Err(other) => panic_free(sql, &other.to_string())?,
            Ok(_) => panic_free(sql, "it ran")?,
        }
    }
    assert!(!target.exists());
    for wrong in [
        "",
        "SELECT",
        "SELECT * FROM '/etc/passwd'",
        "SELECT nope FROM flows",
        "SELECT 1; SELECT 2",
    ] {
        assert!(
            matches!(start(&lake, &lab.limits(), wrong).await, Err(QueryError::Engine(_))),
            "{wrong}"
        );
    }
    assert_eq!(lab.rows().await?.0, 25);
    Ok(())
}

fn panic_free(sql: &str, what: &str) -> Result<()> {
    anyhow::bail!("{sql:?} was not refused as such: {what}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_named() -> Result<()> {
    let lab = filled().await?;
    let error = ask(&lab, "SELECT ip_bin('10.0.0.256')", Format::Csv, None).await;
    let error = error.expect_err("no address").to_string();
    assert!(error.contains("\"10.0.0.256\" is no IP address"), "{error}");
    let error = ask(&lab, "SELECT ip(X'0102')", Format::Csv, None).await;
    let error = error.expect_err("no address").to_string();
    assert!(error.contains("16 bytes, not 2"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_partitions_and_look_ups_stay_right() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    running.commit(batch(1, 1, odd_records())).await?;
    running.stop().await?;
    assert_eq!(lab.number("SELECT count(*) FROM flows WHERE day = DATE '1970-01-01'").await?, 1);
    let v6 = "SELECT count(*) AS n FROM flows WHERE responder = ip_bin('2001:db8::2')";
    assert_eq!(ask(&lab, v6, Format::Csv, None).await?.0, "n\n1\n");
    let nobody = "SELECT ip(NULL) AS who, ip_bin(NULL) AS what";
    assert_eq!(ask(&lab, nobody, Format::Csv, None).await?.0, "who,what\n,\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_short_question_makes_a_value_of_any_size_it_likes() -> Result<()> {
    let lab = filled().await?;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000, 'y')",
        "SELECT range(0, 1000000000)",
        "SELECT array_resize([1], 1000000000)",
    ] {
        let error = ask(&lab, sql, Format::Csv, None).await.expect_err(sql).to_string();
        assert!(error.contains("Invalid function"), "{sql}: {error}");
    }
    let long = format!("SELECT 1{}", "+1".repeat(8_192));
    let error = ask(&lab, &long, Format::Csv, None).await.expect_err("it is too long");
    assert!(error.to_string().contains("16392 bytes, allowed are 16384"), "{error}");
    // The table function gives its rows one after the other.
    let (_, printed) =
        ask(&lab, "SELECT * FROM generate_series(1, 1000000000)", Format::Csv, Some(3)).await?;
    assert_eq!(printed, Printed { rows: 3, cut: true });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_lake_can_be_read() -> Result<()> {
    let lab = filled().await?;
    let file = lab.path().join("backend.toml");
    let path = file.display();
    for sql in [
        format!("SELECT * FROM '{path}'"),
        format!("SELECT * FROM \"file://{path}\""),
        format!("SELECT * FROM read_csv('{path}')"),
        format!("SELECT * FROM read_parquet('{path}')"),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}'"),
        format!("COPY flows TO '{path}'"),
        format!("EXPLAIN ANALYZE COPY flows TO '{path}'"),
    ] {
        assert!(ask(&lab, &sql, Format::Csv, None).await.is_err(), "{sql}");
    }
    Ok(())
}
