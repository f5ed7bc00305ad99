-- Which of the sensor's keys has made the pseudonyms in a batch; NULL: it has none.
ALTER TABLE batches ADD COLUMN key_epoch INTEGER;
