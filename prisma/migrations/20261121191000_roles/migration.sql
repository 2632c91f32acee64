-- Roles that are assumed: a third kind of credential. It is stored before it can be used, because AWS must be told its ExternalId first, so it
-- has no version until it is proven; the version that proof writes is sealed and shredded like that of every other kind.
ALTER TABLE credentials ADD COLUMN external_id text CHECK (external_id ~ '^[A-Za-z0-9-]{32,128}$');
COMMENT ON COLUMN credentials.external_id IS 'Drawn by the service, for kind assume-role only: what the trust policy of the role must ask for. Not a secret, and never the same twice.';
CREATE UNIQUE INDEX credentials_external_id ON credentials (external_id);
ALTER TABLE credentials DROP CONSTRAINT credentials_kind_check;
ALTER TABLE credentials ADD CONSTRAINT credentials_kind_check CHECK (kind IN ('access-key', 'bedrock-api-key', 'assume-role'));
ALTER TABLE credentials ADD CONSTRAINT credentials_external_id_of_roles CHECK ((kind = 'assume-role') = (external_id IS NOT NULL));

-- What the proof of a role found. p_proof: {state: 'active' | 'unsafe', roleArn, accountId, keyHint, sealed: {wrappedKey (hex), kmsKeyArn,
-- secretName, secretVersionId} or null}. `sealed` becomes version 1; where there is a version, it stays and `sealed` is not needed.
-- Account and role are pinned with version 1. The caller has written the audit record in the same transaction, which is the first lock.
-- Answers 'done', 'kept' (done, and `sealed` was not needed), or why nothing was changed: 'credential', 'frozen', 'role' (another one is pinned).
CREATE FUNCTION credential_proven(p_merchant text, p_credential text, p_proof jsonb) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    proven credentials%ROWTYPE;
    sealed jsonb := nullif(p_proof->'sealed', 'null');
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT * INTO proven FROM credentials
    WHERE merchant_id = p_merchant AND id = p_credential AND kind = 'assume-role' AND state <> 'deleted' FOR UPDATE;
    IF NOT FOUND THEN
      RETURN 'credential';
    END IF;
    IF proven.state = 'frozen' THEN
      RETURN 'frozen';
    END IF;
    IF proven.current_version > 0 AND (proven.principal_arn, proven.account_id) IS DISTINCT FROM (p_proof->>'roleArn', p_proof->>'accountId') THEN
      RETURN 'role';
    END IF;
    IF proven.current_version = 0 AND p_proof->>'state' = 'active' THEN
      INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
      VALUES (p_merchant, p_credential, 1, 'current', decode(sealed->>'wrappedKey', 'hex'), sealed->>'kmsKeyArn', sealed->>'secretName',
        sealed->>'secretVersionId');
    END IF;
    UPDATE credentials SET state = p_proof->>'state',
      current_version = CASE WHEN p_proof->>'state' = 'active' THEN greatest(current_version, 1) ELSE current_version END,
      principal_arn = p_proof->>'roleArn', account_id = p_proof->>'accountId', key_hint = p_proof->>'keyHint'
    WHERE merchant_id = p_merchant AND id = p_credential;
    RETURN CASE WHEN sealed IS NOT NULL AND proven.current_version > 0 THEN 'kept' ELSE 'done' END;
  END
  $$;
ALTER FUNCTION credential_proven(text, text, jsonb) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION credential_proven(text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION credential_proven(text, text, jsonb) TO merchant_bedrock_app;

-- As before, and a role may read invocation logs, too.
-- What an operator changes of a merchant: {planId, planVersion, status, override: {spec, endsAt} or null, invocationLogs or null}, each where
-- it is given. Answers 'done', or which thing does not exist: 'merchant', 'plan', 'credential'.
CREATE OR REPLACE FUNCTION merchant_change(p_merchant text, p_change jsonb, p_actor text, p_request_id text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    wanted integer;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM merchants WHERE id = p_merchant) THEN
      RETURN 'merchant';
    END IF;
    IF p_change->'invocationLogs' ? 'credentialId' AND NOT EXISTS (SELECT 1 FROM credentials c
      WHERE c.merchant_id = p_merchant AND c.id = p_change->'invocationLogs'->>'credentialId' AND c.state = 'active' AND c.kind IN ('access-key', 'assume-role')) THEN
      RETURN 'credential';
    END IF;
    IF p_change ? 'planId' THEN
      SELECT coalesce((p_change->>'planVersion')::integer, max(p.version)) INTO wanted FROM plans p WHERE p.id = p_change->>'planId';
      IF NOT EXISTS (SELECT 1 FROM plans p WHERE p.id = p_change->>'planId' AND p.version = wanted) THEN
        RETURN 'plan';
      END IF;
      UPDATE merchants SET plan_id = p_change->>'planId', plan_version = wanted WHERE id = p_merchant;
    END IF;
    IF p_change ? 'status' THEN
      UPDATE merchants SET status = p_change->>'status', status_reason = p_actor WHERE id = p_merchant;
    END IF;
    IF p_change ? 'override' THEN
      DELETE FROM limits WHERE merchant_id = p_merchant AND scope = 'merchant';
      INSERT INTO limits (merchant_id, scope, scope_id, spec, ends_at, set_by)
      SELECT p_merchant, 'merchant', '', o->'spec', (o->>'endsAt')::timestamptz, p_actor FROM (SELECT p_change->'override') AS given (o) WHERE jsonb_typeof(o) = 'object';
    END IF;
    IF p_change ? 'invocationLogs' THEN
      UPDATE merchants SET invocation_logs = nullif(p_change->'invocationLogs', 'null') WHERE id = p_merchant;
    END IF;
    -- What is unknown is looked at again at once: there may be logs now, or another plan.
    UPDATE calls SET reconcile_at = now() WHERE merchant_id = p_merchant AND state = 'unknown' AND reconcile_at > now();
    PERFORM audit_append(p_merchant, p_actor, 'merchant.updated', 'merchant/' || p_merchant, 'allowed', p_request_id, p_change::text);
    RETURN 'done';
  END
  $$;
