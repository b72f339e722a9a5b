-- What is known of a digest at build. One text for SQLite and PostgreSQL: TEXT, BIGINT and BYTEA mean the same in both
-- (SQLite stores a blob as it is in a column of any declared type). Times are milliseconds since 1970.

CREATE TABLE dna (
    digest TEXT PRIMARY KEY NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    programs BIGINT NOT NULL,
    stored_at BIGINT NOT NULL
);
CREATE INDEX dna_stored_at ON dna (stored_at);

-- source: digest of origin, signers and repository, which are too long for a key.
CREATE TABLE subject_dna (
    subject TEXT NOT NULL,
    rules TEXT NOT NULL,
    source TEXT NOT NULL,
    origin TEXT NOT NULL,
    signers TEXT NOT NULL,
    repository TEXT NOT NULL,
    dna TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (subject, rules, source)
);
CREATE INDEX subject_dna_dna ON subject_dna (dna);
CREATE INDEX subject_dna_at ON subject_dna (at);

-- Verified facts, sealed by who verified them: nothing here is believed without its MAC.
CREATE TABLE facts (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    mac BYTEA NOT NULL,
    fetched_at BIGINT NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX facts_fetched_at ON facts (fetched_at);
