-- States and memories of machines on disk; a row is there only once all of its files are. `sleeper` is the machine that is
-- hibernated in it, `carried` what an engine has to know of the guest, as with machines.
CREATE TABLE snapshots (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB NOT NULL UNIQUE,
    tenant     TEXT NOT NULL,
    name       TEXT,
    machine    BLOB NOT NULL,
    sleeper    BLOB UNIQUE,
    template   BLOB NOT NULL,
    lineage    BLOB NOT NULL,
    generation INTEGER NOT NULL,
    guest      TEXT NOT NULL,
    vcpu_milli INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_mib   INTEGER NOT NULL,
    labels     TEXT NOT NULL,
    carried    TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshots_of_tenant ON snapshots (tenant, seq);
CREATE UNIQUE INDEX snapshots_by_name ON snapshots (tenant, name) WHERE name IS NOT NULL;
