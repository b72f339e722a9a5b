-- What rules had done about alerts. id: a hash of alert, action and target, so that of several bridges one does it, once.
-- action: Isolate, DeletePod, ScaleToZero, QuarantineDigest. target: the pod, the workload, the digest. state: dry-run, taken, done, refused,
-- failed, undone. note: why it is so. undo: what is needed to take it back, JSON. actor, reason: who took it back, and why.
CREATE TABLE responses (
    id TEXT PRIMARY KEY NOT NULL,
    alert TEXT NOT NULL,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    rules TEXT NOT NULL,
    state TEXT NOT NULL,
    note TEXT NOT NULL,
    undo TEXT NOT NULL,
    at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX responses_at ON responses (at, id);
CREATE INDEX responses_in_force ON responses (action, target) WHERE state = 'done';
