-- What a proof of a role found while somebody froze the credential is not lost: it is frozen all the same, and thawing makes it unsafe. And a
-- finding is not undone by a proof that began before it, which is told by counting them.
ALTER TABLE credentials ADD COLUMN found_unsafe boolean NOT NULL DEFAULT false, ADD COLUMN unsafe_count integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN credentials.found_unsafe IS 'A proof found the role unsafe while the credential was frozen: thawed, it is unsafe. False in every other state.';
COMMENT ON COLUMN credentials.unsafe_count IS 'How often a proof found the role unsafe.';

-- What the proof of a role found. p_proof: {state: 'active' | 'unsafe', unsafeCount: the credential's unsafe_count when the proof began, roleArn,
-- accountId, keyHint, sealed: {wrappedKey (hex), kmsKeyArn, secretName, secretVersionId} or null}. `sealed` becomes version 1; where there is a version, it
-- stays and `sealed` is not needed. Account and role are pinned with version 1; `unsafe` before that stores them without pinning them. The caller
-- has written the audit record in the same transaction, which is the first lock.
-- Answers 'done', 'kept' (done, and `sealed` was not needed), or why nothing was changed: 'credential', 'role' (another one is pinned), 'changed'
-- (another proof found it unsafe since this one began, and may be the newer one), 'frozen' (but `unsafe` is kept, for when it is thawed).
CREATE OR REPLACE FUNCTION credential_proven(p_merchant text, p_credential text, p_proof jsonb) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
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
    IF proven.current_version > 0 AND (proven.principal_arn, proven.account_id) IS DISTINCT FROM (p_proof->>'roleArn', p_proof->>'accountId') THEN
      RETURN 'role';
    END IF;
    IF proven.state = 'frozen' THEN
      UPDATE credentials SET found_unsafe = found_unsafe OR p_proof->>'state' = 'unsafe',
        unsafe_count = unsafe_count + (p_proof->>'state' = 'unsafe')::integer
      WHERE merchant_id = p_merchant AND id = p_credential;
      RETURN 'frozen';
    END IF;
    IF p_proof->>'state' = 'active' AND proven.unsafe_count IS DISTINCT FROM (p_proof->>'unsafeCount')::integer THEN
      RETURN 'changed';
    END IF;
    IF proven.current_version = 0 AND p_proof->>'state' = 'active' THEN
      INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
      VALUES (p_merchant, p_credential, 1, 'current', decode(sealed->>'wrappedKey', 'hex'), sealed->>'kmsKeyArn', sealed->>'secretName',
        sealed->>'secretVersionId');
    END IF;
    UPDATE credentials SET state = p_proof->>'state',
      current_version = CASE WHEN p_proof->>'state' = 'active' THEN greatest(current_version, 1) ELSE current_version END,
      unsafe_count = unsafe_count + (p_proof->>'state' = 'unsafe')::integer,
      principal_arn = p_proof->>'roleArn', account_id = p_proof->>'accountId', key_hint = p_proof->>'keyHint'
    WHERE merchant_id = p_merchant AND id = p_credential;
    RETURN CASE WHEN sealed IS NOT NULL AND proven.current_version > 0 THEN 'kept' ELSE 'done' END;
  END
  $$;

-- As before, and what was found unsafe meanwhile is unsafe once it is thawed.
-- Freezes a credential, or thaws it. Answers the state it was in, NULL when there is none. Only 'active' can be frozen and only 'frozen' thawed:
-- what waits for its proof or failed it must not become usable this way. Doing it twice is done once.
CREATE OR REPLACE FUNCTION credential_freeze(p_merchant text, p_id text, p_frozen boolean, p_reason text, p_actor text, p_request_id text) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    before text;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT c.state INTO before FROM credentials c WHERE c.merchant_id = p_merchant AND c.id = p_id AND c.state <> 'deleted';
    IF before = (CASE WHEN p_frozen THEN 'active' ELSE 'frozen' END) THEN
      UPDATE credentials SET state = CASE WHEN p_frozen THEN 'frozen' WHEN found_unsafe THEN 'unsafe' ELSE 'active' END, found_unsafe = false
        WHERE merchant_id = p_merchant AND id = p_id;
      PERFORM audit_append(p_merchant, p_actor, CASE WHEN p_frozen THEN 'credential.frozen' ELSE 'credential.thawed' END, 'credential/' || p_id,
        'allowed', p_request_id, jsonb_strip_nulls(jsonb_build_object('reason', p_reason))::text);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN before;
  END
  $$;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY['credential_proven(text, text, jsonb)', 'credential_freeze(text, text, boolean, text, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;
