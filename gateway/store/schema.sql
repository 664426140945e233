-- The store's tables. Instants are milliseconds UTC; `d` columns hold JSON documents with a format number.
-- What ledger, audit and ids contain stands for ever; a change of layout raises `user_version`.

CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY,
    v      INTEGER NOT NULL,          -- the tenant's only lock: every commit raises it by one
    d      TEXT NOT NULL              -- figures, head of the trail, last_now
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    tenant  TEXT NOT NULL,
    subject TEXT NOT NULL,
    d       TEXT NOT NULL,            -- figures
    PRIMARY KEY (tenant, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE subjects (               -- the only place where a subject meets its reference
    tenant  TEXT NOT NULL,
    subject TEXT NOT NULL,
    ref     TEXT NOT NULL,
    PRIMARY KEY (tenant, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    n       INTEGER PRIMARY KEY,      -- the order of arrival: lists and queue positions go by it
    tenant  TEXT NOT NULL,
    id      TEXT NOT NULL,
    subject TEXT NOT NULL,
    created INTEGER NOT NULL,
    ended   INTEGER,
    state   TEXT NOT NULL,
    v       INTEGER NOT NULL,
    d       TEXT NOT NULL,
    UNIQUE (tenant, id)
) STRICT;
CREATE INDEX jobs_of_subject ON jobs (tenant, subject, n);
CREATE INDEX jobs_ended ON jobs (ended) WHERE ended IS NOT NULL;

CREATE TABLE idem (
    tenant  TEXT NOT NULL,
    subject TEXT NOT NULL,
    key     TEXT NOT NULL,
    fp      TEXT NOT NULL,
    job     TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idem_at ON idem (at);

CREATE TABLE queue (                  -- open jobs; a claim moves `due` to the end of its lease
    tenant TEXT NOT NULL,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    due    INTEGER NOT NULL,
    fence  INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_due ON queue (tenant, due);

CREATE TABLE docs (                   -- service keys, uploads, webhook endpoints: what is small and read by its id
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL,            -- 'key', 'upload', 'endpoint'
    id      TEXT NOT NULL,
    subject TEXT NOT NULL,
    at      INTEGER NOT NULL,         -- when it was made; of an upload, when it expires
    d       TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX docs_by_hash ON docs (d ->> '$.hash') WHERE kind = 'key';
CREATE INDEX uploads_at ON docs (at) WHERE kind = 'upload';

CREATE TABLE deliveries (             -- what endpoints are told; a claim moves `due` to the end of its lease
    n        INTEGER PRIMARY KEY,     -- the order in which they were made: lists go by it
    tenant   TEXT NOT NULL,
    id       TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    job      TEXT,
    due      INTEGER,                 -- null: nothing more is sent
    fence    INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    d        TEXT NOT NULL,
    UNIQUE (tenant, id)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (endpoint, due) WHERE due IS NOT NULL;
CREATE INDEX deliveries_over ON deliveries (created) WHERE due IS NULL;
CREATE INDEX deliveries_of_endpoint ON deliveries (tenant, endpoint, n);
CREATE INDEX deliveries_of_job ON deliveries (tenant, job) WHERE job IS NOT NULL;

CREATE TABLE gone (                   -- jobs and uploads that were dropped and whose images may still be there
    tenant TEXT NOT NULL,
    id     TEXT NOT NULL,
    places TEXT NOT NULL,             -- the folders its images were stored in, as a JSON array
    at     INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE turns (                  -- which tenant is served next
    tenant TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,          -- when it may be: its next due job, or when it was served last
    served INTEGER NOT NULL DEFAULT 0, -- breaks ties: who was served last comes last
    weight INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX turns_at ON turns (at, served);

CREATE TABLE ledger (
    tenant         TEXT NOT NULL,
    v              INTEGER NOT NULL,
    i              INTEGER NOT NULL,
    subject_ref    TEXT NOT NULL,     -- '' for the tenant's own entries
    job            TEXT,
    kind           TEXT NOT NULL,
    level          TEXT NOT NULL,
    granted        INTEGER NOT NULL,
    held           INTEGER NOT NULL,
    charged        INTEGER NOT NULL,
    flight         INTEGER NOT NULL,
    month          TEXT NOT NULL,
    cost_micros    INTEGER,
    cost_currency  TEXT,
    policy_version TEXT NOT NULL,
    at             INTEGER NOT NULL,
    PRIMARY KEY (tenant, v, i)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (                  -- the trail: one sealed link a commit
    tenant TEXT NOT NULL,
    v      INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    head   TEXT NOT NULL,
    rows   BLOB NOT NULL,
    PRIMARY KEY (tenant, v)
) STRICT, WITHOUT ROWID;
