-- Several bridges share one stream: each partition of it is judged by one of them at a time, and has a checkpoint of its own.

-- holder: the member that judges it; empty: nobody. epoch: how often it was taken. Who took it commits under its epoch, and only while
-- that is the last one.
ALTER TABLE checkpoints ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE checkpoints ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;

-- Bridges that are there: member is one process, name its bridge's. beat: counted up while it lives. Others hold against their own
-- clocks whether it moves, so that clocks need not agree. at: milliseconds since 1970, for people.
CREATE TABLE members (
    member TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    beat BIGINT NOT NULL,
    at BIGINT NOT NULL
);
