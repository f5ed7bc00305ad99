-- How long a sensor's newest certificate is valid, and when it was last renewed; NULL is not known, or never.
ALTER TABLE sensors ADD COLUMN certificate_begins_ms INTEGER;
ALTER TABLE sensors ADD COLUMN renewed_ms INTEGER;

-- A running backend asks each second who was revoked.
CREATE INDEX sensors_revoked ON sensors (id) WHERE revoked_ms IS NOT NULL;

-- Who was let in, who was not, and by whose command. Never a code, only the beginning of its hash.
CREATE TABLE audit (
    number         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at_ms          INTEGER NOT NULL,
    event          TEXT    NOT NULL,
    member         TEXT,
    sensor         TEXT,
    remote         TEXT,             -- address of the peer, when it was one
    detail         TEXT    NOT NULL
) STRICT;

CREATE INDEX audit_by_event ON audit (event, number);
