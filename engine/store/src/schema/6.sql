-- What each machine used in a month of UTC, which begins at `period_ms`, with corrections in the place of what they correct: kept
-- in the commit of each record, and longer than records are. `quantities` is `Quantities::to_bytes` of the meter; `records` are
-- those that have a part in the month.
CREATE TABLE months (
    period_ms  INTEGER NOT NULL,
    tenant     TEXT NOT NULL,
    meter      INTEGER NOT NULL REFERENCES meters (meter),
    quantities BLOB NOT NULL,
    records    INTEGER NOT NULL,
    PRIMARY KEY (period_ms, tenant, meter)
) STRICT, WITHOUT ROWID;

-- How many of those records are in batches.
CREATE TABLE sealed (
    period_ms INTEGER NOT NULL,
    tenant    TEXT NOT NULL,
    records   INTEGER NOT NULL,
    PRIMARY KEY (period_ms, tenant)
) STRICT, WITHOUT ROWID;

-- What the lines of a month come to by machine, 0 for what is no machine's, and by what is sold: kept in the commit of each line.
CREATE TABLE charges (
    period_ms    INTEGER NOT NULL,
    tenant       TEXT NOT NULL,
    meter        INTEGER NOT NULL,
    sku          INTEGER NOT NULL REFERENCES skus (sku),
    quantity     INTEGER NOT NULL,
    amount_nanos INTEGER NOT NULL,
    lines        INTEGER NOT NULL,
    PRIMARY KEY (period_ms, tenant, meter, sku)
) STRICT, WITHOUT ROWID;
INSERT INTO charges
    SELECT period_ms, tenant, coalesce(meter, 0), sku, sum(quantity), sum(amount_nanos), count(*)
    FROM lines JOIN batches ON sequence = batch GROUP BY 1, 2, 3, 4;

-- Nobody looks for records by time any more.
DROP INDEX usage_over;
DROP INDEX usage_by_end;
ALTER TABLE usage DROP COLUMN is_over;

-- Which component and settings have rated: long words, of which there are few, and many batches.
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY,
    words  TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO revisions (words) SELECT DISTINCT revision FROM batches WHERE revision <> '';
ALTER TABLE batches ADD COLUMN rated_by INTEGER REFERENCES revisions (number);
UPDATE batches SET rated_by = (SELECT number FROM revisions WHERE words = revision);
ALTER TABLE batches DROP COLUMN revision;
