-- Webhooks: whom to tell that a task ended, and each telling until it arrived or was given up.
-- A hook's secret is nowhere here: it is made of the hook's id and a key that only the owner reads.

CREATE TABLE webhooks (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    description VARCHAR(200) NOT NULL DEFAULT '',
    -- An admin's leave to call an address that is not public.
    private BOOLEAN NOT NULL DEFAULT FALSE,
    -- Attempts that failed since the last one that did not.
    failures INTEGER NOT NULL DEFAULT 0,
    disabled_at TIMESTAMPTZ,
    disabled_why TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_webhooks_user ON webhooks (user_id, created_at DESC);

CREATE TABLE webhook_deliveries (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    webhook_id UUID NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- No reference: a delivery outlives its task. NULL: a test.
    task_id UUID,
    event VARCHAR(40) NOT NULL,
    -- The bytes that are signed and sent, the same at every attempt.
    body TEXT NOT NULL,
    status VARCHAR(20) NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    response_status INTEGER,
    error TEXT,
    took_ms INTEGER,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    ended_at TIMESTAMPTZ
);
-- One task is told to a hook once.
CREATE UNIQUE INDEX idx_webhook_deliveries_task ON webhook_deliveries (webhook_id, task_id);
CREATE INDEX idx_webhook_deliveries_hook ON webhook_deliveries (webhook_id, created_at DESC);
CREATE INDEX idx_webhook_deliveries_due ON webhook_deliveries (next_at) WHERE status = 'pending';
CREATE INDEX idx_webhook_deliveries_old ON webhook_deliveries (created_at);

-- What the sweep looks for: requests that ended lately.
CREATE INDEX idx_tasks_ended ON tasks (user_id, completed_at)
WHERE type = 'request' AND completed_at IS NOT NULL;
