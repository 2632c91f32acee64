-- Names of secrets that are about to be created at Secrets Manager, written before AWS is asked. A process that dies, or an answer that is lost,
-- leaves a ciphertext there whose key nobody has; by its name it is found and removed.

CREATE TABLE secret_intents (
  -- Not a foreign key: a merchant is onboarded together with its first credential.
  merchant_id text NOT NULL,
  secret_name text NOT NULL,
  created_at timestamptz(6) NOT NULL DEFAULT clock_timestamp(),
  swept_at timestamptz(6),
  PRIMARY KEY (merchant_id, secret_name)
);
COMMENT ON COLUMN secret_intents.swept_at IS 'A sweep has begun to remove it: from then on no credential may be committed with it.';
CREATE INDEX secret_intents_due ON secret_intents (created_at);

CREATE FUNCTION secret_announce(p_merchant text, p_name text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    INSERT INTO secret_intents (merchant_id, secret_name) VALUES (p_merchant, p_name);
    PERFORM set_config('app.merchant_id', '', true);
    RETURN true;
  END
  $$;

-- In the transaction that writes the credential, of its merchant: from its commit on the secret is no left-over. False when a sweep was first.
CREATE FUNCTION secret_commit(p_name text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    DELETE FROM secret_intents WHERE merchant_id = (SELECT tenant()) AND secret_name = p_name AND swept_at IS NULL;
    RETURN FOUND;
  END
  $$;

-- The secret is gone from Secrets Manager.
CREATE FUNCTION secret_forget(p_merchant text, p_name text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    DELETE FROM secret_intents WHERE merchant_id = p_merchant AND secret_name = p_name;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN true;
  END
  $$;

-- Secrets announced so long ago that nobody commits them any more, and that no sweep has begun with in the last ten minutes.
CREATE FUNCTION secret_leftovers_due(p_after_ms bigint, p_limit integer) RETURNS TABLE (merchant_id text, secret_name text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT i.merchant_id, i.secret_name FROM secret_intents i
    WHERE i.created_at < clock_timestamp() - make_interval(secs => p_after_ms / 1000.0)
      AND (i.swept_at IS NULL OR i.swept_at < clock_timestamp() - interval '10 minutes')
    ORDER BY i.created_at LIMIT p_limit
  $$;

-- Takes those for one sweep. One whose credential is being committed at this moment is locked by that and left; of two sweeps one gets it. It
-- locks these rows and nothing after them, so it needs no place in the order of locks.
CREATE FUNCTION secret_leftovers_take(p_after_ms bigint, p_limit integer) RETURNS TABLE (merchant_id text, secret_name text)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    due record;
  BEGIN
    FOR due IN SELECT * FROM secret_leftovers_due(p_after_ms, p_limit) LOOP
      PERFORM set_config('app.merchant_id', due.merchant_id, true);
      PERFORM 1 FROM secret_intents
      WHERE merchant_id = due.merchant_id AND secret_name = due.secret_name
        AND (swept_at IS NULL OR swept_at < clock_timestamp() - interval '10 minutes')
      FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      -- Cannot be, because a commit removes the row; if it ever is, the credential counts more.
      CONTINUE WHEN EXISTS (
        SELECT 1 FROM credential_versions v
        WHERE v.merchant_id = due.merchant_id AND v.secret_name = due.secret_name AND v.state <> 'destroyed');
      UPDATE secret_intents SET swept_at = clock_timestamp() WHERE merchant_id = due.merchant_id AND secret_name = due.secret_name;
      RETURN QUERY SELECT due.merchant_id, due.secret_name;
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
  END
  $$;

ALTER TABLE secret_intents ENABLE ROW LEVEL SECURITY;
ALTER TABLE secret_intents FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON secret_intents USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()));
CREATE POLICY ops_reads ON secret_intents FOR SELECT TO merchant_bedrock_ops USING (true);
ALTER TABLE secret_intents OWNER TO merchant_bedrock_owner;
GRANT SELECT ON secret_intents TO merchant_bedrock_app, merchant_bedrock_ops;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY[
    'secret_announce(text, text)', 'secret_commit(text)', 'secret_forget(text, text)', 'secret_leftovers_take(bigint, integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  ALTER FUNCTION secret_leftovers_due(bigint, integer) OWNER TO merchant_bedrock_ops;
  REVOKE ALL ON FUNCTION secret_leftovers_due(bigint, integer) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION secret_leftovers_due(bigint, integer) TO merchant_bedrock_owner;
END
$functions$;
