-- What sinks were told of incidents. Incidents are made of alerts and are not written: only what was said of them is, so that
-- any number of bridges say it once. id: the alert that it began with. number: how often something was said. told: what was said last, in
-- the words of the bridges.
CREATE TABLE incidents_told (
    id TEXT PRIMARY KEY NOT NULL,
    number BIGINT NOT NULL,
    told TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX incidents_told_at ON incidents_told (at);
