-- The seed plan's tables, column for column. Where its SQL cannot run or would lose data:
--   audit_logs: a partitioned table's key must hold the partition column: (id, timestamp);
--   api_usage: DATE(timestamptz) depends on the session's zone, so days are UTC days;
--     cost_usd has 8 decimals, or the cost of a small cached call would round to nothing;
--   foreign keys say what a delete does, so that a user or a conversation can be deleted;
--   agent_heartbeats.current_task_id is what an agent claims, not a reference: a heartbeat
--     that names a task which is gone must still be written.

-- Users and authentication

CREATE TABLE users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email VARCHAR(255) UNIQUE NOT NULL,
    password_hash VARCHAR(255),
    display_name VARCHAR(100),
    avatar_url TEXT,
    role VARCHAR(20) DEFAULT 'user' CHECK (role IN ('user', 'admin', 'system')),
    oauth_provider VARCHAR(50),
    oauth_id VARCHAR(255),
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    last_login_at TIMESTAMPTZ,
    is_active BOOLEAN DEFAULT TRUE
);
CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_oauth ON users (oauth_provider, oauth_id);

CREATE TABLE sessions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    token_hash VARCHAR(255) NOT NULL,
    ip_address INET,
    user_agent TEXT,
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_sessions_user ON sessions (user_id);
CREATE INDEX idx_sessions_expires ON sessions (expires_at);

-- Conversations and messages

CREATE TABLE conversations (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    title VARCHAR(255),
    status VARCHAR(20) DEFAULT 'active' CHECK (status IN ('active', 'archived', 'deleted')),
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    metadata JSONB DEFAULT '{}'
);
CREATE INDEX idx_conversations_user ON conversations (user_id, status);
CREATE INDEX idx_conversations_updated ON conversations (updated_at DESC);

CREATE TABLE messages (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id UUID REFERENCES conversations (id) ON DELETE CASCADE,
    role VARCHAR(20) NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    content TEXT NOT NULL,
    agent VARCHAR(50),
    parent_message_id UUID REFERENCES messages (id) ON DELETE SET NULL,
    token_count INTEGER,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    metadata JSONB DEFAULT '{}'
);
CREATE INDEX idx_messages_conversation ON messages (conversation_id, created_at);
CREATE INDEX idx_messages_agent ON messages (agent);

CREATE TABLE attachments (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    message_id UUID REFERENCES messages (id) ON DELETE CASCADE,
    filename VARCHAR(255) NOT NULL,
    mime_type VARCHAR(100),
    size_bytes BIGINT,
    storage_path TEXT NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW()
);

-- Tasks and agent work

CREATE TABLE tasks (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id UUID REFERENCES conversations (id) ON DELETE CASCADE,
    parent_task_id UUID REFERENCES tasks (id) ON DELETE CASCADE,
    assigned_agent VARCHAR(50) NOT NULL,
    type VARCHAR(50) NOT NULL,
    priority INTEGER DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    status VARCHAR(20) DEFAULT 'pending' CHECK (
        status IN (
            'pending', 'assigned', 'in_progress', 'waiting', 'completed', 'failed', 'cancelled'
        )
    ),
    input JSONB NOT NULL,
    output JSONB,
    error TEXT,
    pai_phase VARCHAR(20),
    verification_criteria JSONB,
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_tasks_status ON tasks (status, priority DESC);
CREATE INDEX idx_tasks_agent ON tasks (assigned_agent, status);
CREATE INDEX idx_tasks_conversation ON tasks (conversation_id);
CREATE INDEX idx_tasks_parent ON tasks (parent_task_id);

CREATE TABLE task_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    task_id UUID REFERENCES tasks (id) ON DELETE CASCADE,
    level VARCHAR(10) CHECK (level IN ('debug', 'info', 'warning', 'error')),
    message TEXT NOT NULL,
    data JSONB,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_task_logs_task ON task_logs (task_id, created_at);

-- Model usage and cost

CREATE TABLE api_usage (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    agent VARCHAR(50) NOT NULL,
    provider VARCHAR(50) NOT NULL,
    model VARCHAR(100) NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd NUMERIC(12, 8) NOT NULL,
    task_id UUID REFERENCES tasks (id) ON DELETE SET NULL,
    latency_ms INTEGER,
    timestamp TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_api_usage_timestamp ON api_usage (timestamp DESC);
CREATE INDEX idx_api_usage_agent ON api_usage (agent, timestamp DESC);
CREATE INDEX idx_api_usage_daily ON api_usage (((timestamp AT TIME ZONE 'UTC')::DATE), provider);

CREATE MATERIALIZED VIEW api_usage_daily AS
SELECT
    (timestamp AT TIME ZONE 'UTC')::DATE AS date,
    agent,
    provider,
    model,
    SUM(input_tokens) AS total_input_tokens,
    SUM(output_tokens) AS total_output_tokens,
    SUM(cost_usd) AS total_cost,
    COUNT(*) AS request_count,
    AVG(latency_ms) AS avg_latency_ms
FROM api_usage
GROUP BY (timestamp AT TIME ZONE 'UTC')::DATE, agent, provider, model;

-- Audit log, one partition a month

CREATE TABLE audit_logs (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    event_type VARCHAR(20) NOT NULL,
    actor_type VARCHAR(20) NOT NULL,
    actor_id VARCHAR(100) NOT NULL,
    actor_ip INET,
    resource_type VARCHAR(50),
    resource_path TEXT,
    action VARCHAR(20) NOT NULL,
    outcome VARCHAR(20) NOT NULL,
    details JSONB,
    risk_level VARCHAR(20) DEFAULT 'low',
    PRIMARY KEY (id, timestamp)
) PARTITION BY RANGE (timestamp);
CREATE INDEX idx_audit_timestamp ON audit_logs (timestamp DESC);
CREATE INDEX idx_audit_actor ON audit_logs (actor_type, actor_id);
CREATE INDEX idx_audit_risk ON audit_logs (risk_level, timestamp DESC);

-- Domains

CREATE TABLE domains (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    domain_name VARCHAR(255) UNIQUE NOT NULL,
    status VARCHAR(20) DEFAULT 'pending'
    CHECK (status IN ('pending', 'active', 'suspended', 'deleted')),
    ssl_status VARCHAR(20) DEFAULT 'none'
    CHECK (ssl_status IN ('none', 'pending', 'active', 'expired', 'failed')),
    ssl_expires_at TIMESTAMPTZ,
    webroot_path TEXT,
    nginx_config_path TEXT,
    cloudflare_zone_id VARCHAR(100),
    created_by UUID REFERENCES users (id) ON DELETE SET NULL,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    metadata JSONB DEFAULT '{}'
);
CREATE INDEX idx_domains_status ON domains (status);
CREATE INDEX idx_domains_ssl_expires ON domains (ssl_expires_at);

-- Agents

CREATE TABLE agent_heartbeats (
    agent_name VARCHAR(50) PRIMARY KEY,
    status VARCHAR(20) DEFAULT 'unknown' CHECK (
        status IN (
            'starting', 'running', 'idle', 'busy', 'stopping', 'stopped', 'error', 'unknown'
        )
    ),
    last_heartbeat TIMESTAMPTZ,
    current_task_id UUID,
    metrics JSONB DEFAULT '{}',
    updated_at TIMESTAMPTZ DEFAULT NOW()
);
