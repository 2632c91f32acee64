-- What was left behind is found: calls that were admitted and never sent, because the answer of their admission was lost; ciphertexts of
-- credentials that were deleted, and of merchants that were closed; and data keys are moved only with the copy in Secrets Manager.

-- Calls of p_process that its admission was told nothing of, so that nothing was sent for them: those that were committed all the same are
-- void. p_calls: [{merchant_id, request_id}]. To be asked when their statement has been ended, or is in its commit: then it has the heads,
-- for which this waits, so that what it does not find will never be. Rows that a sweep took for unknown meanwhile are meant, too. Answers
-- how many moved.
CREATE FUNCTION ledger_void_unsent(p_process uuid, p_calls jsonb) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
  DECLARE
    unsent scope_name[];
  BEGIN
    PERFORM 1 FROM (
      SELECT 1 FROM audit_heads h WHERE h.merchant_id IN (SELECT l.merchant_id FROM jsonb_to_recordset(p_calls) AS l (merchant_id text))
      ORDER BY h.merchant_id FOR UPDATE) AS locked;
    unsent := ARRAY(
      SELECT ROW(c.merchant_id, 'call', c.id)::scope_name
      FROM jsonb_to_recordset(p_calls) AS l (merchant_id text, request_id text)
      CROSS JOIN LATERAL (
        SELECT h.merchant_id, h.id FROM calls h
        WHERE h.state = 'held' AND h.process_id = p_process AND h.merchant_id = l.merchant_id AND h.request_id = l.request_id
        UNION ALL
        SELECT u.merchant_id, u.id FROM calls u
        WHERE u.state = 'unknown' AND u.process_id = p_process AND u.merchant_id = l.merchant_id AND u.request_id = l.request_id) AS c);
    RETURN jsonb_array_length(ledger_settle((
      SELECT coalesce(jsonb_agg(jsonb_build_object('merchant_id', u.merchant_id, 'pos', 1, 'id', u.scope_id, 'state', 'void',
        'reason', 'never sent')), '[]')
      FROM unnest(unsent) AS u)));
  END
  $$;
ALTER FUNCTION ledger_void_unsent(uuid, jsonb) OWNER TO merchant_bedrock_ledger;
REVOKE ALL ON FUNCTION ledger_void_unsent(uuid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_void_unsent(uuid, jsonb) TO merchant_bedrock_app;

-- In the transaction that destroys the keys of these secrets, of its merchant: if they are not removed behind it, a sweep does it.
CREATE FUNCTION secrets_orphaned(p_names text[]) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    INSERT INTO secret_intents (merchant_id, secret_name) SELECT DISTINCT (SELECT tenant()), n FROM unnest(p_names) AS n ON CONFLICT DO NOTHING;
    RETURN true;
  END
  $$;
COMMENT ON TABLE secret_intents IS 'Names of secrets that belong to no credential: on their way in before the credential is committed, on their way out after it was deleted.';

-- As in the migration revocation, and the names of the secrets are written down: who dies before they are removed leaves them to the sweep.
CREATE OR REPLACE FUNCTION merchant_close(p_merchant text, p_reason text, p_actor text, p_request_id text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    before text;
    counts jsonb := '{}';
    n integer;
    result jsonb;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT status INTO before FROM merchants WHERE id = p_merchant;
    IF before <> 'closed' THEN
      UPDATE merchants SET status = 'closed', status_reason = p_actor, default_credential_id = NULL, invocation_logs = NULL WHERE id = p_merchant;
      UPDATE api_keys SET revoked_at = clock_timestamp() WHERE merchant_id = p_merchant AND revoked_at IS NULL;
      GET DIAGNOSTICS n = ROW_COUNT;
      counts := counts || jsonb_build_object('apiKeys', n);
      UPDATE credentials SET state = 'deleted', deleted_at = clock_timestamp() WHERE merchant_id = p_merchant AND state <> 'deleted';
      GET DIAGNOSTICS n = ROW_COUNT;
      counts := counts || jsonb_build_object('credentials', n);
      PERFORM secrets_orphaned(ARRAY(SELECT v.secret_name FROM credential_versions v WHERE v.merchant_id = p_merchant AND v.state <> 'destroyed'));
      UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()
        WHERE merchant_id = p_merchant AND state <> 'destroyed';
      GET DIAGNOSTICS n = ROW_COUNT;
      counts := counts || jsonb_build_object('dataKeys', n);
      DELETE FROM webhooks WHERE merchant_id = p_merchant;
      GET DIAGNOSTICS n = ROW_COUNT;
      counts := counts || jsonb_build_object('webhooks', n);
      SELECT count(*) INTO n FROM idempotency_keys WHERE merchant_id = p_merchant AND answer IS NOT NULL;
      DELETE FROM idempotency_keys WHERE merchant_id = p_merchant;
      counts := counts || jsonb_build_object('answers', n);
      -- There are no logs to look into any more: what is unknown is settled by the plan's policy.
      UPDATE calls SET reconcile_at = now() WHERE merchant_id = p_merchant AND state = 'unknown' AND reconcile_at > now();
      PERFORM audit_append(p_merchant, p_actor, 'merchant.closed', 'merchant/' || p_merchant, 'allowed', p_request_id,
        (counts || jsonb_strip_nulls(jsonb_build_object('reason', p_reason)))::text);
    END IF;
    IF before IS NOT NULL THEN
      result := jsonb_build_object('closed', before <> 'closed', 'counts', counts, 'secrets', coalesce(
        (SELECT jsonb_agg(DISTINCT v.secret_name) FROM credential_versions v WHERE v.merchant_id = p_merchant), '[]'));
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN result;
  END
  $$;
ALTER FUNCTION secrets_orphaned(text[]) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION secrets_orphaned(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION secrets_orphaned(text[]) TO merchant_bedrock_app;

-- And which version of the secret it is: whether Secrets Manager encrypted that one anew is looked at before the row says so.
DROP FUNCTION data_keys_take(text, text, text, integer, integer);
CREATE FUNCTION data_keys_take(p_arn text, p_after_merchant text, p_after_credential text, p_after_version integer, p_limit integer)
  RETURNS TABLE (merchant_id text, credential_id text, version integer, kms_key_arn text, wrapped_key bytea, secret_name text, secret_version_id text)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    one record;
  BEGIN
    FOR one IN SELECT * FROM data_keys_elsewhere(p_arn, p_after_merchant, p_after_credential, p_after_version, p_limit) LOOP
      PERFORM set_config('app.merchant_id', one.merchant_id, true);
      RETURN QUERY
        SELECT v.merchant_id, v.credential_id, v.version, v.kms_key_arn, v.wrapped_key, v.secret_name, v.secret_version_id FROM credential_versions v
        WHERE v.merchant_id = one.merchant_id AND v.credential_id = one.credential_id AND v.version = one.version AND v.state <> 'destroyed';
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
  END
  $$;

ALTER FUNCTION data_keys_take(text, text, text, integer, integer) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION data_keys_take(text, text, text, integer, integer) FROM PUBLIC;

-- As in the migration keys, but it waits for no version. It holds many of them, of many merchants, without their heads (which every call
-- of theirs would wait for); exchanges and deletions hold a head and lock several versions, so that to wait for one could be to wait for
-- each other. One that is being changed counts as overtaken; it is taken again while it is under the older key.
CREATE OR REPLACE FUNCTION data_keys_rewrapped(p_keys jsonb, p_arn text, p_actor text, p_request_id text) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    one record;
    written integer := 0;
  BEGIN
    PERFORM set_config('app.merchant_id', '~system', true);
    INSERT INTO audit_heads VALUES ('~system', 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM audit_heads h WHERE h.merchant_id = '~system' FOR UPDATE;
    FOR one IN
      SELECT k.* FROM jsonb_to_recordset(p_keys) AS k ("merchantId" text, "credentialId" text, version integer, before text, after text) ORDER BY 1, 2, 3
    LOOP
      PERFORM set_config('app.merchant_id', one."merchantId", true);
      PERFORM 1 FROM credential_versions
      WHERE merchant_id = one."merchantId" AND credential_id = one."credentialId" AND version = one.version AND wrapped_key = decode(one.before, 'hex')
        -- What another run was faster with is not done again.
        AND kms_key_arn <> p_arn
      FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      UPDATE credential_versions SET wrapped_key = decode(one.after, 'hex'), kms_key_arn = p_arn
      WHERE merchant_id = one."merchantId" AND credential_id = one."credentialId" AND version = one.version;
      written := written + 1;
    END LOOP;
    IF written > 0 THEN
      PERFORM audit_append('~system', p_actor, 'keys.rewrapped', 'data-keys', 'allowed', p_request_id,
        jsonb_build_object('kmsKeyArn', p_arn, 'keys', written)::text);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN written;
  END
  $$;
