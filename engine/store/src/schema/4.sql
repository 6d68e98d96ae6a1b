-- The last version that was given out under a name. It outlives the secret: a version never means another value.
CREATE TABLE secret_versions (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    last   INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
INSERT INTO secret_versions SELECT tenant, name, max(version) FROM secrets GROUP BY tenant, name;

-- What a living machine was given, by name: values are only in `secrets`.
CREATE TABLE machine_secrets (
    machine BLOB NOT NULL,
    target  TEXT NOT NULL,
    place   TEXT NOT NULL,
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (machine, target, place)
) STRICT, WITHOUT ROWID;

-- The end that a machine was admitted to, and how long nobody may ask anything of it before it ends.
ALTER TABLE machines ADD COLUMN granted_ms INTEGER;
ALTER TABLE machines ADD COLUMN idle_ms INTEGER;
UPDATE machines SET granted_ms = expires_ms;
