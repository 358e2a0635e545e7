-- What the one path needs beyond the seed plan.

-- Tasks: who asked, where it stands in the plan, who holds it, what it may spend.

ALTER TABLE tasks
    ADD COLUMN user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    ADD COLUMN message_id UUID REFERENCES messages (id) ON DELETE SET NULL,
    ADD COLUMN root_id UUID REFERENCES tasks (id) ON DELETE CASCADE,
    ADD COLUMN key VARCHAR(100),
    ADD COLUMN title TEXT,
    ADD COLUMN effort VARCHAR(20) NOT NULL DEFAULT 'standard'
    CHECK (effort IN ('minimal', 'standard', 'extended', 'deep')),
    ADD COLUMN requested_agent VARCHAR(50),
    ADD COLUMN workspace TEXT NOT NULL DEFAULT 'main',
    ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN lease_until TIMESTAMPTZ,
    ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN handoffs INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN depends_on UUID[] NOT NULL DEFAULT '{}',
    ADD COLUMN budget_tokens BIGINT,
    ADD COLUMN budget_usd NUMERIC(12, 8),
    ADD COLUMN usage JSONB NOT NULL DEFAULT '{}',
    ADD COLUMN cancel_requested BOOLEAN NOT NULL DEFAULT FALSE;

CREATE INDEX idx_tasks_root ON tasks (root_id);
CREATE INDEX idx_tasks_message ON tasks (message_id);
CREATE INDEX idx_tasks_user ON tasks (user_id, created_at DESC);
CREATE INDEX idx_tasks_open ON tasks (priority DESC, created_at)
WHERE status IN ('pending', 'assigned', 'in_progress', 'waiting');
-- A plan written twice would run everything twice.
CREATE UNIQUE INDEX idx_tasks_key ON tasks (parent_task_id, key);

-- What deletes follow, beside the seed plan's indexes.

CREATE INDEX idx_messages_parent ON messages (parent_message_id);
CREATE INDEX idx_attachments_message ON attachments (message_id);

-- Usage: cached tokens and what the call was for.

ALTER TABLE api_usage
    ADD COLUMN purpose VARCHAR(20),
    ADD COLUMN cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
CREATE INDEX idx_api_usage_task ON api_usage (task_id);
-- REFRESH ... CONCURRENTLY asks for a unique index.
CREATE UNIQUE INDEX idx_api_usage_daily_key ON api_usage_daily (date, agent, provider, model);

-- Outbox: what was promised to the wire in the transaction that made it true.

CREATE TABLE outbox (
    id BIGSERIAL PRIMARY KEY,
    stream TEXT NOT NULL,
    body BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    sent_at TIMESTAMPTZ
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX idx_outbox_unsent ON outbox (id) WHERE sent_at IS NULL;
CREATE INDEX idx_outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;

-- Idempotency: the answer that a key got, and of which request.

CREATE TABLE idempotency (
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key VARCHAR(255) NOT NULL,
    request_hash CHAR(64) NOT NULL,
    status SMALLINT NOT NULL,
    response JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idx_idempotency_created ON idempotency (created_at);

-- Audit partitions. The default one takes what no month was made for; its rows move when the
-- month is made, so no entry is refused and none stays behind.

CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT;

CREATE FUNCTION audit_logs_make_partitions(months_ahead INTEGER DEFAULT 3)
RETURNS INTEGER LANGUAGE plpgsql AS $$
DECLARE
    this_month TIMESTAMP := date_trunc('month', NOW() AT TIME ZONE 'UTC');
    month TIMESTAMP;
    first TIMESTAMPTZ;
    next TIMESTAMPTZ;
    name TEXT;
    made INTEGER := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('audit_logs_make_partitions', 0));
    FOR month IN
        SELECT this_month + make_interval(months => ahead)
        FROM generate_series(0, months_ahead) AS ahead
        UNION
        SELECT date_trunc('month', timestamp AT TIME ZONE 'UTC') FROM audit_logs_default
    LOOP
        first := month AT TIME ZONE 'UTC';
        next := (month + INTERVAL '1 month') AT TIME ZONE 'UTC';
        name := 'audit_logs_' || to_char(month, '"y"YYYY"m"MM');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE audit_logs INCLUDING DEFAULTS)', name);
        EXECUTE format(
            'WITH moved AS (DELETE FROM audit_logs_default '
            'WHERE timestamp >= %L AND timestamp < %L RETURNING *) '
            'INSERT INTO %I SELECT * FROM moved', first, next, name
        );
        EXECUTE format(
            'ALTER TABLE audit_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, first, next
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
SELECT audit_logs_make_partitions();
