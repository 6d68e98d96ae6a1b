-- Programs in machines, under the ids that the agents in them gave out; a daughter has her mother's under the same ids.
-- `argv` is JSON, cut to a readable length: what a program really got is the guest's to know.
CREATE TABLE execs (
    machine    BLOB NOT NULL,
    exec       INTEGER NOT NULL,
    tenant     TEXT NOT NULL,
    argv       TEXT NOT NULL,
    state      TEXT NOT NULL,
    code       INTEGER,
    signal     INTEGER,
    created_ms INTEGER NOT NULL,
    ended_ms   INTEGER,
    PRIMARY KEY (machine, exec)
) STRICT, WITHOUT ROWID;
