-- Memory: one card for each thing remembered. The keeper alone writes these tables.

CREATE TABLE memory (
    id UUID PRIMARY KEY,
    collection TEXT NOT NULL
    CHECK (collection IN ('memories', 'learnings', 'conversations', 'knowledge')),
    user_id TEXT NOT NULL CHECK (user_id <> ''),
    -- the one place that says where it is; a copy anywhere else is waste
    tier TEXT NOT NULL CHECK (tier IN ('hot', 'warm', 'cold')),
    -- of a cold memory the text is in its month's file alone
    text TEXT CHECK ((text IS NULL) = (tier = 'cold')),
    kind TEXT NOT NULL DEFAULT 'fact',
    agent TEXT NOT NULL DEFAULT '',
    speaker TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '',
    task_id TEXT,
    conversation_id TEXT,
    seq INTEGER,
    file TEXT NOT NULL DEFAULT '',
    tags TEXT [] NOT NULL DEFAULT '{}',
    tainted BOOLEAN NOT NULL DEFAULT FALSE,
    created_at TIMESTAMPTZ NOT NULL,
    phase TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '',
    applies_when TEXT NOT NULL DEFAULT '',
    evidence TEXT NOT NULL DEFAULT '',
    domain TEXT NOT NULL DEFAULT '',
    extra JSONB NOT NULL DEFAULT '{}',
    -- what it has its place in: a conversation, else a file
    series TEXT GENERATED ALWAYS AS (COALESCE(conversation_id, NULLIF(file, ''))) STORED,
    hash CHAR(64) NOT NULL,

    -- what became of it
    stored_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    promoted_at TIMESTAMPTZ,
    used_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    first_seen TIMESTAMPTZ NOT NULL,
    support INTEGER NOT NULL DEFAULT 1,
    access_count INTEGER NOT NULL DEFAULT 0,
    rank_sum DOUBLE PRECISION NOT NULL DEFAULT 0,
    feedback DOUBLE PRECISION NOT NULL DEFAULT 0.5,
    helped INTEGER NOT NULL DEFAULT 0,
    harmed INTEGER NOT NULL DEFAULT 0,
    utility DOUBLE PRECISION NOT NULL DEFAULT 0.5,

    -- what is still to be done
    -- model of the vector in the store; '': words only; NULL: not in the store yet
    vector_of TEXT,
    -- whether near duplicates were looked for
    compared BOOLEAN NOT NULL DEFAULT FALSE,
    -- when maintenance has to look at it; NULL: not by time
    due_at TIMESTAMPTZ,
    -- places that may still hold a copy: hot, warm, cold
    sweep TEXT [] NOT NULL DEFAULT '{}',
    -- to be removed once all copies are swept; nobody sees it any more
    leaving BOOLEAN NOT NULL DEFAULT FALSE,
    cold_month TEXT
);
CREATE INDEX idx_memory_due ON memory (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX idx_memory_hash ON memory (hash);
CREATE INDEX idx_memory_user ON memory (user_id, collection, created_at DESC);
CREATE INDEX idx_memory_series ON memory (series, seq) WHERE seq IS NOT NULL;
CREATE INDEX idx_memory_hot ON memory (agent, used_at) WHERE tier = 'hot';
CREATE INDEX idx_memory_hot_task ON memory (task_id) WHERE tier = 'hot';
CREATE INDEX idx_memory_utility ON memory (utility) WHERE tier = 'warm';
CREATE INDEX idx_memory_vector ON memory (vector_of) WHERE tier <> 'cold';
CREATE INDEX idx_memory_compare ON memory (id) WHERE NOT compared AND vector_of > '';
CREATE INDEX idx_memory_sweep ON memory (id) WHERE sweep <> '{}' OR leaving;
CREATE INDEX idx_memory_month ON memory (cold_month) WHERE cold_month IS NOT NULL;

-- What a duplicate became: whoever still has its id finds the memory that took it in.

CREATE TABLE memory_merged (
    id UUID PRIMARY KEY,
    into_id UUID NOT NULL REFERENCES memory (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    hash CHAR(64) NOT NULL,
    file TEXT NOT NULL DEFAULT '',
    task_id TEXT,
    merged_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_memory_merged_into ON memory_merged (into_id);

-- Which memories a task was given, and at which place of the list.

CREATE TABLE memory_use (
    task_id TEXT NOT NULL,
    memory_id UUID NOT NULL REFERENCES memory (id) ON DELETE CASCADE,
    root_id TEXT,
    rank INTEGER NOT NULL CHECK (rank >= 1),
    at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (task_id, memory_id)
);
CREATE INDEX idx_memory_use_memory ON memory_use (memory_id);
CREATE INDEX idx_memory_use_root ON memory_use (root_id);
CREATE INDEX idx_memory_use_at ON memory_use (at);

-- The signals, as they came; `applied_at` once the memories felt it.

CREATE TABLE memory_signal (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL,
    user_id TEXT NOT NULL,
    root_id TEXT,
    task_id TEXT,
    weight DOUBLE PRECISION NOT NULL,
    rating INTEGER,
    scale INTEGER NOT NULL DEFAULT 5,
    comment TEXT NOT NULL DEFAULT '',
    at TIMESTAMPTZ NOT NULL,
    applied_at TIMESTAMPTZ
);
CREATE INDEX idx_memory_signal_root ON memory_signal (root_id);
CREATE INDEX idx_memory_signal_user ON memory_signal (user_id, at DESC);

-- The archive's files: how many bytes of each count. What lies beyond was never committed and is
-- cut off; `swap`: the file beside it with the ending .new takes its place.

CREATE TABLE memory_file (
    name TEXT PRIMARY KEY,
    size_bytes BIGINT NOT NULL DEFAULT 0,
    swap BOOLEAN NOT NULL DEFAULT FALSE
);

-- Task folders that are in the archive and not yet removed.

CREATE TABLE memory_folder (
    name TEXT PRIMARY KEY,
    archived_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

-- The embedding model that was last in use, so that a keeper can start before the worker does.

CREATE TABLE memory_model (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    model TEXT NOT NULL,
    dim INTEGER NOT NULL
);

-- How many there are, kept by the database, so that nobody has to count.

CREATE TABLE memory_count (
    tier TEXT NOT NULL,
    collection TEXT NOT NULL,
    count BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (tier, collection)
);

CREATE FUNCTION memory_counted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_count AS kept (tier, collection, count, size_bytes)
    SELECT tier, collection, SUM(n), SUM(b) FROM (
        SELECT tier, collection, 1 AS n, COALESCE(octet_length(text), 0) AS b FROM came
    ) AS changed
    GROUP BY tier, collection ORDER BY tier, collection
    ON CONFLICT (tier, collection) DO UPDATE
    SET count = kept.count + EXCLUDED.count, size_bytes = kept.size_bytes + EXCLUDED.size_bytes;
    RETURN NULL;
END $$;

CREATE FUNCTION memory_uncounted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE memory_count AS kept
    SET count = kept.count - gone.n, size_bytes = kept.size_bytes - gone.b
    FROM (
        SELECT tier, collection, COUNT(*) AS n, SUM(COALESCE(octet_length(text), 0)) AS b
        FROM went GROUP BY tier, collection ORDER BY tier, collection
    ) AS gone
    WHERE kept.tier = gone.tier AND kept.collection = gone.collection;
    RETURN NULL;
END $$;

CREATE FUNCTION memory_recounted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_count AS kept (tier, collection, count, size_bytes)
    SELECT tier, collection, SUM(n), SUM(b) FROM (
        SELECT tier, collection, 1 AS n, COALESCE(octet_length(text), 0) AS b FROM came
        UNION ALL
        SELECT tier, collection, -1, -COALESCE(octet_length(text), 0) FROM went
    ) AS changed
    GROUP BY tier, collection HAVING SUM(n) <> 0 OR SUM(b) <> 0 ORDER BY tier, collection
    ON CONFLICT (tier, collection) DO UPDATE
    SET count = kept.count + EXCLUDED.count, size_bytes = kept.size_bytes + EXCLUDED.size_bytes;
    RETURN NULL;
END $$;

CREATE TRIGGER memory_came AFTER INSERT ON memory
REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION memory_counted();
CREATE TRIGGER memory_went AFTER DELETE ON memory
REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION memory_uncounted();
CREATE TRIGGER memory_changed AFTER UPDATE ON memory
REFERENCING OLD TABLE AS went NEW TABLE AS came
FOR EACH STATEMENT EXECUTE FUNCTION memory_recounted();
