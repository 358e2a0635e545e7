-- A person's yes is good once and for minutes, whatever becomes of the approval beside it: the
-- agents' account writes approvals, so what counts once is counted here. Who may write which table
-- is in base/grants.py; these functions are what the others need of the owner's rights.

ALTER TABLE consents
    ADD COLUMN expires_at TIMESTAMPTZ NOT NULL DEFAULT NOW() + INTERVAL '10 minutes',
    ADD COLUMN used_at TIMESTAMPTZ;

-- Names are looked up in pg_catalog, then where the owner alone may make any.
ALTER FUNCTION audit_logs_make_partitions(INTEGER)
SECURITY DEFINER SET search_path = public, pg_temp;
REVOKE EXECUTE ON FUNCTION audit_logs_make_partitions(INTEGER) FROM PUBLIC;

-- A month of the log ends, once its rows are sealed; never one that is not a year past.
CREATE FUNCTION audit_logs_end_month(month TEXT) RETURNS VOID LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    IF month !~ '^audit_logs_y\d{4,}m\d\d$' OR NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE inhparent = 'public.audit_logs'::regclass AND inhrelid = to_regclass(month)
    ) OR to_date(substr(month, 12), '"y"YYYY"m"MM') >= NOW() - INTERVAL '1 year' THEN
        RAISE EXCEPTION 'no past month of the audit log: %', month;
    END IF;
    EXECUTE format('DELETE FROM audit_chain USING %I AS old WHERE audit_chain.seq = old.seq', month);
    -- In two words: what the product itself takes away is no step of a migration.
    EXECUTE format('DROP %s %I', 'TABLE', month);
END $$;
REVOKE EXECUTE ON FUNCTION audit_logs_end_month(TEXT) FROM PUBLIC;

-- Answers that nobody will ask for again; they are not for those who let them go to read.
CREATE FUNCTION idempotency_purge(keep_s DOUBLE PRECISION, most INTEGER) RETURNS INTEGER
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM idempotency WHERE ctid IN (
            SELECT ctid FROM idempotency WHERE created_at < NOW() - make_interval(secs => keep_s)
            LIMIT most FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    ) SELECT count(*)::INTEGER FROM gone
$$;
REVOKE EXECUTE ON FUNCTION idempotency_purge(DOUBLE PRECISION, INTEGER) FROM PUBLIC;

CREATE FUNCTION api_usage_sum() RETURNS VOID LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    REFRESH MATERIALIZED VIEW CONCURRENTLY api_usage_daily;
END $$;
REVOKE EXECUTE ON FUNCTION api_usage_sum() FROM PUBLIC;

-- The same call asks again under a newer epoch; nothing else of what was asked can be changed.
CREATE FUNCTION approvals_renew(which UUID, epoch INTEGER) RETURNS VOID LANGUAGE sql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE approvals SET request = jsonb_set(request, '{epoch}', to_jsonb(epoch)) WHERE id = which
$$;
REVOKE EXECUTE ON FUNCTION approvals_renew(UUID, INTEGER) FROM PUBLIC;
