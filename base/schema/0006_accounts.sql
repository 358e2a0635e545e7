-- Accounts: sessions with a family of refresh tokens, one-time links, identities, API tokens.
-- users.oauth_provider and oauth_id stay empty: a person may have both providers, so identities
-- have a table of their own.

ALTER TABLE users
    ADD COLUMN time_zone VARCHAR(64);

ALTER TABLE sessions
    ADD COLUMN how VARCHAR(20) NOT NULL DEFAULT 'password',
    ADD COLUMN last_seen_at TIMESTAMPTZ;
CREATE INDEX idx_sessions_token ON sessions (token_hash);
-- Login links were sessions until now; those that wait are good for 15 minutes at most.
DELETE FROM sessions WHERE user_agent = 'unused login link';

-- Refresh tokens that were used up. One that comes again was stolen, or its thief was first.
CREATE TABLE session_used (
    token_hash CHAR(64) PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    used_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_session_used_session ON session_used (session_id, used_at);

-- One-time links; a used one is gone.
CREATE TABLE links (
    token_hash CHAR(64) PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose VARCHAR(20) NOT NULL CHECK (purpose IN ('login', 'invite', 'reset')),
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_links_user ON links (user_id);
CREATE INDEX idx_links_expires ON links (expires_at);

-- Who somebody is at an identity provider. `subject` is the provider's own id, never the email.
CREATE TABLE identities (
    provider VARCHAR(20) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email VARCHAR(255) NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    used_at TIMESTAMPTZ,
    PRIMARY KEY (provider, subject),
    UNIQUE (user_id, provider)
);

CREATE TABLE api_tokens (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name VARCHAR(100) NOT NULL,
    token_hash CHAR(64) NOT NULL UNIQUE,
    hint VARCHAR(16) NOT NULL,
    scopes TEXT [] NOT NULL,
    expires_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_api_tokens_user ON api_tokens (user_id, created_at DESC);
