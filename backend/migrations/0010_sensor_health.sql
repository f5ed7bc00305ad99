-- What each sensor last told of itself over the link. Times are milliseconds since the Unix epoch.
CREATE TABLE sensor_health (
    sensor         TEXT    NOT NULL PRIMARY KEY REFERENCES sensors (id),
    heard_ms       INTEGER NOT NULL,
    report         TEXT    NOT NULL -- JSON; a number that is not known is null
) STRICT, WITHOUT ROWID;
