-- When a sensor's certificate ends, milliseconds since the Unix epoch; NULL is not known.
ALTER TABLE sensors ADD COLUMN certificate_ends_ms INTEGER;

-- Every certificate so far was issued for 397 days with the enrolment.
UPDATE sensors SET certificate_ends_ms = enrolled_ms + 397 * 86400000;
