-- A person's own yes to a verb of the root broker. The portal writes it, as the person presses;
-- nothing on the wire can, so a decision that only the wire told of opens nothing.

CREATE TABLE consents (
    approval_id UUID PRIMARY KEY REFERENCES approvals (id) ON DELETE CASCADE,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    binding CHAR(64) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
