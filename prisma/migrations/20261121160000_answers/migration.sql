-- Answers of calls that carried an Idempotency-Key: kept for a day, sealed under a key that the database does not have.

ALTER TABLE idempotency_keys
  -- What is sealed does not compress.
  ALTER COLUMN answer SET STORAGE EXTERNAL,
  ADD CONSTRAINT answer_has_an_end CHECK ((answer IS NULL) = (answer_until IS NULL)),
  ADD CONSTRAINT answer_within_bound CHECK (octet_length(answer) <= 1114112);
CREATE INDEX answers_expire ON idempotency_keys (answer_until) WHERE answer_until IS NOT NULL;

-- Keeps the answer of a call, before the call is settled: a crash between the two leaves an answer that is whole and a row in doubt, never a
-- settled row whose answer could still have been kept. False when the key belongs to another attempt by now. It locks this one row and nothing
-- after it, so it needs no place in the order of locks.
CREATE FUNCTION answer_keep(p_merchant text, p_call uuid, p_key_hash bytea, p_answer bytea) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    kept boolean;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE idempotency_keys SET answer = p_answer, answer_until = clock_timestamp() + interval '24 hours'
    WHERE merchant_id = p_merchant AND key_hash = p_key_hash AND call_id = p_call;
    kept := FOUND;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN kept;
  END
  $$;

-- Which merchants have answers past their end. Answers themselves are not to be read across merchants: the columns are granted one by one.
CREATE FUNCTION answers_expired(p_limit integer) RETURNS TABLE (merchant_id text, keys bytea[])
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT k.merchant_id, array_agg(k.key_hash)
    FROM (SELECT i.merchant_id, i.key_hash FROM idempotency_keys i WHERE i.answer_until < clock_timestamp() ORDER BY i.answer_until LIMIT p_limit) AS k
    GROUP BY 1 ORDER BY 1
  $$;

-- Removes answers past their end; the keys stay. Merchants that another transaction works on are left for the next round. Answers how many.
CREATE FUNCTION answers_sweep(p_limit integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    expired record;
    removed integer := 0;
    gone integer;
  BEGIN
    FOR expired IN SELECT * FROM answers_expired(p_limit) LOOP
      PERFORM set_config('app.merchant_id', expired.merchant_id, true);
      PERFORM 1 FROM audit_heads WHERE merchant_id = expired.merchant_id FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      UPDATE idempotency_keys SET answer = NULL, answer_until = NULL
      WHERE merchant_id = expired.merchant_id AND key_hash = ANY (expired.keys) AND answer_until < clock_timestamp();
      GET DIAGNOSTICS gone = ROW_COUNT;
      removed := removed + gone;
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN removed;
  END
  $$;

CREATE POLICY ops_reads ON idempotency_keys FOR SELECT TO merchant_bedrock_ops USING (true);
GRANT SELECT (merchant_id, key_hash, answer_until) ON idempotency_keys TO merchant_bedrock_ops;

ALTER FUNCTION answers_expired(integer) OWNER TO merchant_bedrock_ops;
ALTER FUNCTION answer_keep(text, uuid, bytea, bytea) OWNER TO merchant_bedrock_owner;
ALTER FUNCTION answers_sweep(integer) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION answers_expired(integer), answer_keep(text, uuid, bytea, bytea), answers_sweep(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION answers_expired(integer) TO merchant_bedrock_owner;
GRANT EXECUTE ON FUNCTION answer_keep(text, uuid, bytea, bytea), answers_sweep(integer) TO merchant_bedrock_app;
