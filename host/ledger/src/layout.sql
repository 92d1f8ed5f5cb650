-- What the database is made of; the layout's number is in layout.rs.

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    budget TEXT NOT NULL,
    scope TEXT NOT NULL,
    start_s INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    in_doubt INTEGER NOT NULL DEFAULT 0,
    ends_s INTEGER,
    UNIQUE (budget, scope, start_s)
) STRICT;
CREATE INDEX accounts_end ON accounts (ends_s) WHERE ends_s IS NOT NULL;
CREATE TABLE leases (
    account INTEGER NOT NULL REFERENCES accounts (id),
    node TEXT NOT NULL,
    leased INTEGER NOT NULL,
    PRIMARY KEY (account, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE calls (
    at_ms INTEGER NOT NULL,
    request TEXT NOT NULL,
    key TEXT NOT NULL,
    team TEXT NOT NULL,
    run TEXT NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    target_model TEXT NOT NULL,
    tried TEXT NOT NULL,
    input INTEGER NOT NULL,
    cached_input INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    total_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    basis TEXT NOT NULL
) STRICT;
CREATE INDEX calls_at ON calls (at_ms);
CREATE TABLE usage (
    day TEXT NOT NULL,
    key TEXT NOT NULL,
    team TEXT NOT NULL,
    run TEXT NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    calls INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, key, team, run, model, upstream)
) STRICT, WITHOUT ROWID;
CREATE TABLE in_doubt (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL,
    attempt TEXT NOT NULL,
    amount INTEGER NOT NULL,
    accounts TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
