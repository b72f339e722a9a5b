-- Analyses to be done, for several replicas. state: waiting, leased, done, failed. version: who changed it last wins, and who
-- holds an older one lost his lease. credentials: JSON, names of pull secrets and never what is in them.

CREATE TABLE work (
    image TEXT NOT NULL,
    platform TEXT NOT NULL,
    priority BIGINT NOT NULL,
    credentials TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    version BIGINT NOT NULL,
    worker TEXT,
    lease_until BIGINT NOT NULL,
    ready_at BIGINT NOT NULL,
    enqueued_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (image, platform)
);
CREATE INDEX work_waiting ON work (state, priority, enqueued_at);
CREATE INDEX work_finished_at ON work (state, finished_at);
