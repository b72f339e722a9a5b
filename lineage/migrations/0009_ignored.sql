-- ignored_until: milliseconds since 1970. All that was seen of the alert is ignored by a rule until then; NULL: it is not.
ALTER TABLE alerts ADD COLUMN ignored_until BIGINT;
