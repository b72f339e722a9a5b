-- What was decided at deploy, and what a container that runs is held to.

CREATE TABLE expectations (
    digest TEXT PRIMARY KEY NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    stored_at BIGINT NOT NULL
);
CREATE INDEX expectations_stored_at ON expectations (stored_at);

-- platform: empty where it is not known. at: when it was admitted; written_at: when the ledger learned of it.
CREATE TABLE bindings (
    cluster TEXT NOT NULL,
    pod_uid TEXT NOT NULL,
    container TEXT NOT NULL,
    platform TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pod TEXT NOT NULL,
    owner TEXT,
    image TEXT NOT NULL,
    digest TEXT,
    expectation TEXT,
    decision TEXT,
    at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    PRIMARY KEY (cluster, pod_uid, container, platform)
);
CREATE INDEX bindings_digest ON bindings (digest);
CREATE INDEX bindings_expectation ON bindings (expectation);
CREATE INDEX bindings_at ON bindings (at);
CREATE INDEX bindings_written_at ON bindings (cluster, written_at);

-- images, rules: JSON. packed: reasons and findings, JSON by zstd. unknowns: 1 where it was admitted without all facts.
CREATE TABLE decisions (
    id TEXT PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    requester TEXT NOT NULL,
    operation TEXT NOT NULL,
    verdict TEXT NOT NULL,
    unknowns BIGINT NOT NULL,
    images TEXT NOT NULL,
    rules TEXT NOT NULL,
    details TEXT NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_namespace ON decisions (namespace, id);
CREATE INDEX decisions_verdict ON decisions (verdict, id);
CREATE INDEX decisions_unknowns ON decisions (id) WHERE unknowns = 1;

CREATE TABLE decision_images (
    digest TEXT NOT NULL,
    decision TEXT NOT NULL,
    PRIMARY KEY (digest, decision)
);
CREATE INDEX decision_images_decision ON decision_images (decision);
