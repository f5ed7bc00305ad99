-- Everything small that the backend keeps beside the lake. Times are milliseconds since the Unix epoch.

CREATE TABLE members (
    id             TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    own_prefixes   TEXT    NOT NULL, -- JSON array of CIDR texts; empty: the private ranges count as own
    created_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE sensors (
    id             TEXT    NOT NULL PRIMARY KEY,
    member         TEXT    NOT NULL REFERENCES members (id),
    public_key     BLOB    NOT NULL UNIQUE,
    enrolled_ms    INTEGER NOT NULL,
    revoked_ms     INTEGER
) STRICT;

-- Only the hash of a code's secret is kept.
CREATE TABLE enrolment_codes (
    secret_hash    BLOB    NOT NULL PRIMARY KEY,
    member         TEXT    NOT NULL REFERENCES members (id),
    created_ms     INTEGER NOT NULL,
    expires_ms     INTEGER NOT NULL,
    used_ms        INTEGER,
    sensor         TEXT    REFERENCES sensors (id)
) STRICT;

-- One row a stored batch, copied from the lake's commit log; `applied` says up to which version of it.
CREATE TABLE batches (
    sensor         TEXT    NOT NULL,
    boot_epoch     INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,
    member         TEXT    NOT NULL,
    start_ms       INTEGER NOT NULL,
    end_ms         INTEGER NOT NULL,
    sealed_ms      INTEGER NOT NULL,
    received_ms    INTEGER NOT NULL,
    records        INTEGER NOT NULL,
    bytes          INTEGER NOT NULL, -- sealed size
    books          TEXT    NOT NULL, -- JSON, the sensor's totals when it sealed the batch
    object_sha256  TEXT    NOT NULL,
    previous_blake3 TEXT   NOT NULL,
    sensor_version TEXT    NOT NULL,
    PRIMARY KEY (sensor, boot_epoch, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX batches_by_member ON batches (member, end_ms);

CREATE TABLE applied (
    only           INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    lake_version   INTEGER NOT NULL
) STRICT;

CREATE TABLE counters (
    name           TEXT    NOT NULL PRIMARY KEY,
    value          INTEGER NOT NULL
) STRICT;

CREATE TABLE findings (
    member         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    severity       TEXT    NOT NULL,
    source         TEXT,
    target         TEXT,
    first_ms       INTEGER NOT NULL,
    last_ms        INTEGER NOT NULL,
    records        INTEGER NOT NULL,
    body           TEXT    NOT NULL, -- the whole finding as JSON
    found_ms       INTEGER NOT NULL, -- when this backend first had it
    updated_ms     INTEGER NOT NULL,
    PRIMARY KEY (member, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX findings_by_time ON findings (member, last_ms);
