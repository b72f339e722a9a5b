-- What was seen at run time. Times are milliseconds since 1970.

-- The number of the last change to an alert. Who writes an alert takes the next numbers first, in the same transaction, so that
-- numbers are in the order in which changes are seen, and writers wait for each other here and nowhere else.
CREATE TABLE revisions (
    name TEXT PRIMARY KEY NOT NULL,
    last BIGINT NOT NULL
);
INSERT INTO revisions (name, last) VALUES ('alerts', 0);

-- risk: millionths. revision: of its last change. changed_at: when that was. document, packed, bytes: the whole alert, JSON by zstd.
CREATE TABLE alerts (
    id TEXT PRIMARY KEY NOT NULL,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    owner TEXT NOT NULL,
    container TEXT NOT NULL,
    digest TEXT NOT NULL,
    class TEXT NOT NULL,
    subject TEXT NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    risk BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    count BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    document TEXT NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE UNIQUE INDEX alerts_revision ON alerts (revision);
CREATE INDEX alerts_last_seen ON alerts (last_seen, id);
CREATE INDEX alerts_risk ON alerts (risk, id);
CREATE INDEX alerts_digest ON alerts (digest);
CREATE INDEX alerts_namespace ON alerts (namespace);
CREATE INDEX alerts_resolved ON alerts (changed_at) WHERE state = 'resolved';

-- What people did to an alert. revision: the one it made.
CREATE TABLE alert_audit (
    alert TEXT NOT NULL,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (alert, revision)
);

-- Alerts that nobody is told of until a time; a part of the scope that is NULL fits any. alert: the one it was made at.
CREATE TABLE suppressions (
    id TEXT PRIMARY KEY NOT NULL,
    alert TEXT NOT NULL,
    cluster TEXT,
    namespace TEXT,
    owner TEXT,
    container TEXT,
    digest TEXT,
    class TEXT,
    subject TEXT,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX suppressions_expires_at ON suppressions (expires_at);

-- When a sensor could not see.
CREATE TABLE blind (
    cluster TEXT NOT NULL,
    node TEXT NOT NULL,
    sensor TEXT NOT NULL,
    cause TEXT NOT NULL,
    begins BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    lost BIGINT,
    reason TEXT NOT NULL,
    PRIMARY KEY (cluster, node, sensor, cause, begins)
);
CREATE INDEX blind_ends ON blind (ends);

-- How far a bridge has judged its log. judged: what it judged above that, ranges by postcard.
CREATE TABLE checkpoints (
    bridge TEXT PRIMARY KEY NOT NULL,
    log_offset BIGINT NOT NULL,
    judged BYTEA NOT NULL,
    at BIGINT NOT NULL
);

-- What sinks are still to be told. id: alert and revision, the key by which a sink knows what it was told before.
CREATE TABLE notices (
    id TEXT NOT NULL,
    sink TEXT NOT NULL,
    document TEXT NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (id, sink)
);
CREATE INDEX notices_next_try ON notices (next_try);
CREATE INDEX notices_made_at ON notices (made_at);
