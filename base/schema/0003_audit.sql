-- The audit log as a chain. Each row of audit_logs names the hash of the row before it; what is
-- hashed is in base/audit_chain.py. audit_chain remembers which events are written (a partitioned
-- table cannot have a unique id or seq of its own) and where the chain ends.

ALTER TABLE audit_logs
    ADD COLUMN seq BIGINT,
    ADD COLUMN prev_hash CHAR(64),
    ADD COLUMN hash CHAR(64);
CREATE INDEX idx_audit_seq ON audit_logs (seq);
CREATE INDEX idx_audit_task ON audit_logs ((details ->> 'task_id'), timestamp DESC);

CREATE TABLE audit_chain (
    seq BIGINT PRIMARY KEY CHECK (seq > 0),
    id UUID NOT NULL UNIQUE,
    hash CHAR(64) NOT NULL
);

-- The writer's role: it may add to both and read what it continues from, nothing else. Where our
-- user may not make roles, the writer goes on as itself, and `audit verify` and `doctor` say so.

DO $$
BEGIN
    BEGIN
        CREATE ROLE ai_infra_audit NOLOGIN NOINHERIT;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'this user may not create the role ai_infra_audit';
    END;
    BEGIN
        IF NOT pg_has_role(CURRENT_USER, 'ai_infra_audit', 'MEMBER') THEN
            GRANT ai_infra_audit TO CURRENT_USER;
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR undefined_object THEN
            RAISE NOTICE 'this user may not become ai_infra_audit';
    END;
    BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO ai_infra_audit', current_schema());
        GRANT INSERT ON audit_logs TO ai_infra_audit;
        GRANT INSERT, SELECT ON audit_chain TO ai_infra_audit;
    EXCEPTION
        WHEN insufficient_privilege OR undefined_object THEN
            RAISE NOTICE 'the role ai_infra_audit has no rights here';
    END;
END $$;
