-- Branches of a conversation, and the files that come with messages.

-- A person's message names the person's message that it follows; an answer names the message that
-- it answers. Conversations from before were one line, and answers from before name theirs.

UPDATE messages AS m SET parent_message_id = before.id
FROM (
    SELECT id, LAG(id) OVER (PARTITION BY conversation_id ORDER BY created_at, id) AS previous
    FROM messages WHERE role = 'user'
) AS line
JOIN messages AS before ON before.id = line.previous
WHERE m.id = line.id AND m.parent_message_id IS NULL;

CREATE INDEX idx_messages_asked ON messages (conversation_id, created_at DESC, id DESC)
WHERE role = 'user';

-- Files: whose, what was found inside, and where among those of its message.

ALTER TABLE attachments
    ADD COLUMN user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    ADD COLUMN kind VARCHAR(10) NOT NULL DEFAULT 'text' CHECK (kind IN ('image', 'pdf', 'text')),
    ADD COLUMN sha256 CHAR(64),
    ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
CREATE INDEX idx_attachments_user ON attachments (user_id, created_at DESC);
CREATE INDEX idx_attachments_waiting ON attachments (created_at) WHERE message_id IS NULL;
CREATE INDEX idx_attachments_path ON attachments (storage_path);

-- What is looked for in the list of conversations.

CREATE INDEX idx_conversations_listed
ON conversations (user_id, status, updated_at DESC, id DESC);
