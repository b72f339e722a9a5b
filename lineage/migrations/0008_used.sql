-- What workloads were seen to do, to be held against what was predicted.

-- id: a hash of where it is and what it runs. dna, expectation: what it is compared with. starts: containers seen, those again that a bridge
-- met anew after its own start.
CREATE TABLE workloads (
    id TEXT PRIMARY KEY NOT NULL,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    owner TEXT NOT NULL,
    container TEXT NOT NULL,
    digest TEXT NOT NULL,
    dna TEXT NOT NULL,
    expectation TEXT,
    starts BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL
);
CREATE INDEX workloads_owner ON workloads (namespace, owner);
CREATE INDEX workloads_last_seen ON workloads (last_seen, id);

-- predicted: 1 where the DNA has it, else 0.
CREATE TABLE used (
    workload TEXT NOT NULL,
    dimension TEXT NOT NULL,
    item TEXT NOT NULL,
    predicted BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (workload, dimension, item)
);
CREATE INDEX used_last_seen ON used (last_seen);
