-- Times are milliseconds since the epoch, ids are 16 bytes. JSON columns hold maps and lists that no query looks into.

CREATE TABLE tenants (
    name       TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT;

-- A key itself is nowhere: only its SHA-256.
CREATE TABLE keys (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL REFERENCES tenants (name),
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    scopes     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT;
CREATE INDEX keys_of_tenant ON keys (tenant, created_ms);

-- What the engine has set out to do; written down before it is done.
CREATE TABLE intents (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    operation  TEXT NOT NULL,
    subject    BLOB NOT NULL,
    body       TEXT NOT NULL,
    holds      TEXT NOT NULL,
    units      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    closed_ms  INTEGER,
    outcome    TEXT
) STRICT;
CREATE INDEX intents_open ON intents (created_ms) WHERE closed_ms IS NULL;

CREATE TABLE idempotency (
    tenant     TEXT NOT NULL,
    route      TEXT NOT NULL,
    key        TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    intent     BLOB NOT NULL REFERENCES intents (id),
    created_ms INTEGER NOT NULL,
    answer     TEXT,
    PRIMARY KEY (tenant, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_of_intent ON idempotency (intent);
CREATE INDEX idempotency_by_age ON idempotency (created_ms);

CREATE TABLE templates (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB NOT NULL UNIQUE,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    visibility TEXT NOT NULL,
    guest      TEXT NOT NULL,
    vcpus      INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

CREATE TABLE machines (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB NOT NULL UNIQUE,
    tenant     TEXT NOT NULL,
    project    TEXT NOT NULL,
    name       TEXT,
    kind       TEXT NOT NULL,
    mother     BLOB,
    lineage    BLOB NOT NULL,
    template   BLOB NOT NULL,
    generation INTEGER NOT NULL,
    state      TEXT NOT NULL,
    vcpu_milli INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_mib   INTEGER NOT NULL,
    labels     TEXT NOT NULL,
    intent     BLOB NOT NULL REFERENCES intents (id),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    ended_ms   INTEGER,
    ending     TEXT
) STRICT;
CREATE INDEX machines_of_tenant ON machines (tenant, kind, ended_ms IS NULL, seq);
CREATE INDEX machines_of_lineage ON machines (lineage, seq);
CREATE INDEX machines_alive ON machines (seq) WHERE ended_ms IS NULL;
CREATE UNIQUE INDEX machines_by_name ON machines (tenant, name) WHERE name IS NOT NULL AND ended_ms IS NULL;

-- Of those alive only: a list by label costs what it shows, however many have ended.
CREATE TABLE machine_labels (
    tenant TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    seq    INTEGER NOT NULL REFERENCES machines (seq),
    PRIMARY KEY (tenant, key, value, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_of_machine ON machine_labels (seq);

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    subject BLOB NOT NULL,
    at_ms   INTEGER NOT NULL,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_tenant ON events (tenant, seq);

-- One row: up to which event the outbox was trimmed.
CREATE TABLE outbox (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    trimmed INTEGER NOT NULL
) STRICT;
INSERT INTO outbox VALUES (1, 0);

CREATE TABLE decisions (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    intent BLOB NOT NULL,
    tenant TEXT NOT NULL,
    at_ms  INTEGER NOT NULL,
    body   TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_of_intent ON decisions (intent);

-- Values are encrypted before they come here.
CREATE TABLE secrets (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugin_state (
    plugin     TEXT NOT NULL,
    key        TEXT NOT NULL,
    bytes      BLOB,
    counter    INTEGER,
    expires_ms INTEGER,
    PRIMARY KEY (plugin, key),
    CHECK ((bytes IS NULL) <> (counter IS NULL))
) STRICT, WITHOUT ROWID;
