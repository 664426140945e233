-- What came after the first tables: made in any file that is opened to write, and passed over by those who
-- do not know it. Only what can be made twice, and what a file without it can be filled from.

CREATE TABLE IF NOT EXISTS batch_turns ( -- as `turns`, for jobs of the kind 'batch'
    tenant TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    served INTEGER NOT NULL DEFAULT 0,
    weight INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batch_turns_at ON batch_turns (at, served);

DROP INDEX IF EXISTS queue_due;          -- of both kinds together
CREATE INDEX IF NOT EXISTS queue_turn ON queue (tenant, kind, due);
CREATE INDEX IF NOT EXISTS queue_line ON queue (kind, due); -- how many are due, and since when
