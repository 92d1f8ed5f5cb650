-- New with layout 3: a new database has these tables too.

-- Secrets, each sealed with the master key; see seal.rs.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    master BLOB NOT NULL,
    sealed_ms INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT, WITHOUT ROWID;
