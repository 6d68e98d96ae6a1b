-- Whose usage is counted, with the reading at which the next window begins. `_ns` of births and readings are of the clock that
-- does not jump.
CREATE TABLE meters (
    meter         INTEGER PRIMARY KEY,
    machine       BLOB NOT NULL UNIQUE,
    is_checkpoint INTEGER NOT NULL,
    tenant        TEXT NOT NULL,
    project       TEXT NOT NULL,
    lineage       BLOB NOT NULL,
    template      BLOB NOT NULL,
    vcpu_milli    INTEGER NOT NULL,
    memory_mib    INTEGER NOT NULL,
    disk_mib      INTEGER NOT NULL,
    labels        TEXT NOT NULL,
    born_ms       INTEGER NOT NULL,
    born_ns       INTEGER NOT NULL,
    last_ms       INTEGER NOT NULL,
    last_ns       INTEGER NOT NULL,
    cpu_ns        INTEGER NOT NULL,
    private_kib   INTEGER NOT NULL,
    motion        INTEGER NOT NULL,
    is_ended      INTEGER NOT NULL
) STRICT;
CREATE INDEX meters_of_tenant ON meters (tenant, meter);

-- Windows, each with the hash of all before it; never changed. `what` is cause + 8 * motion + 32 * doubt; `is_over` says that it
-- began in a month before the one that it ended in.
CREATE TABLE usage (
    seq          INTEGER PRIMARY KEY,
    meter        INTEGER NOT NULL,
    what         INTEGER NOT NULL,
    end_ms       INTEGER NOT NULL,
    age_us       INTEGER NOT NULL,
    span_us      INTEGER NOT NULL,
    cpu_ns       INTEGER NOT NULL,
    cpu_total_ns INTEGER NOT NULL,
    private_kib  INTEGER NOT NULL,
    corrects     INTEGER,
    hash         BLOB NOT NULL,
    is_over      INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_by_end ON usage (end_ms);
CREATE INDEX usage_over ON usage (end_ms) WHERE is_over = 1;
CREATE INDEX usage_corrections ON usage (corrects, seq) WHERE corrects IS NOT NULL;

-- The last record of each stretch that is no longer kept.
CREATE TABLE usage_anchors (
    seq   INTEGER PRIMARY KEY,
    hash  BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

-- One row: up to which record all are in batches, and which settings rated last.
CREATE TABLE rating (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    sealed   INTEGER NOT NULL,
    revision TEXT NOT NULL
) STRICT;
INSERT INTO rating VALUES (1, 0, '');

-- `origin` is the batch whose samples are corrected. `balances` is what the policy was told,
-- JSON; `place` its place among those that are done.
CREATE TABLE batches (
    sequence  INTEGER PRIMARY KEY,
    tenant    TEXT NOT NULL,
    period_ms INTEGER NOT NULL,
    from_seq  INTEGER NOT NULL,
    to_seq    INTEGER NOT NULL,
    origin    INTEGER REFERENCES batches (sequence),
    state     TEXT NOT NULL,
    attempts  INTEGER NOT NULL,
    due_ms    INTEGER NOT NULL,
    trouble   TEXT NOT NULL,
    revision  TEXT NOT NULL,
    balances  TEXT NOT NULL,
    done_ms   INTEGER,
    place     INTEGER
) STRICT;
CREATE UNIQUE INDEX batches_by_place ON batches (place) WHERE place IS NOT NULL;
CREATE INDEX batches_open ON batches (sequence) WHERE state <> 'done';
CREATE INDEX batches_of_tenant ON batches (tenant, period_ms, sequence);
CREATE INDEX batches_by_range ON batches (to_seq);

CREATE TABLE skus (
    sku      INTEGER PRIMARY KEY,
    name     TEXT NOT NULL,
    currency TEXT NOT NULL,
    unit     TEXT NOT NULL,
    per      INTEGER NOT NULL,
    UNIQUE (name, currency, unit, per)
) STRICT;

-- `rated` is the batch in which the line's sample was rated first, `reverses` the one whose line this one takes back.
CREATE TABLE lines (
    batch            INTEGER NOT NULL REFERENCES batches (sequence),
    line             INTEGER NOT NULL,
    meter            INTEGER,
    dimension        INTEGER,
    sku              INTEGER NOT NULL REFERENCES skus (sku),
    quantity         INTEGER NOT NULL,
    unit_price_nanos INTEGER NOT NULL,
    amount_nanos     INTEGER NOT NULL,
    rated            INTEGER NOT NULL,
    reverses         INTEGER,
    PRIMARY KEY (batch, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX lines_corrected ON lines (rated, batch) WHERE rated <> batch;

CREATE TABLE totals (
    tenant    TEXT NOT NULL,
    period_ms INTEGER NOT NULL,
    dimension INTEGER NOT NULL,
    quantity  INTEGER NOT NULL,
    PRIMARY KEY (tenant, period_ms, dimension)
) STRICT, WITHOUT ROWID;

CREATE TABLE spending (
    tenant    TEXT NOT NULL,
    currency  TEXT NOT NULL,
    period_ms INTEGER NOT NULL,
    nanos     INTEGER NOT NULL,
    PRIMARY KEY (tenant, currency, period_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE credits (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT NOT NULL,
    key       TEXT NOT NULL,
    currency  TEXT NOT NULL,
    nanos     INTEGER NOT NULL,
    note      TEXT NOT NULL,
    period_ms INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    UNIQUE (tenant, key)
) STRICT;

-- The last verdict on what a tenant has left.
CREATE TABLE budgets (
    tenant     TEXT PRIMARY KEY,
    left_nanos INTEGER NOT NULL,
    action     TEXT NOT NULL,
    message    TEXT NOT NULL,
    batch      INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
