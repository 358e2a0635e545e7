-- Approvals: what agents asked for above their level, and what was decided. The supervisor writes.

CREATE TABLE approvals (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    task_id UUID NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    agent VARCHAR(50) NOT NULL,
    call_id VARCHAR(200) NOT NULL,
    request JSONB NOT NULL,
    -- what is approved, to the byte; and the same without the call, so that asking again is known
    binding CHAR(64) NOT NULL,
    subject CHAR(64) NOT NULL,
    status VARCHAR(20) NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'used')),
    risk VARCHAR(20) NOT NULL CHECK (risk IN ('low', 'medium', 'high', 'critical')),
    sentence TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    expires_at TIMESTAMPTZ NOT NULL,
    decided_at TIMESTAMPTZ,
    decided_by VARCHAR(100),
    decided_via VARCHAR(20),
    decided_why TEXT NOT NULL DEFAULT '',
    UNIQUE (task_id, call_id)
);
CREATE INDEX idx_approvals_agent ON approvals (agent, created_at DESC);
CREATE INDEX idx_approvals_user ON approvals (user_id, created_at DESC);
CREATE INDEX idx_approvals_created ON approvals (created_at DESC, id);
CREATE INDEX idx_approvals_open ON approvals (expires_at) WHERE status IN ('pending', 'approved');
