-- Rotation: a stored credential has two live versions for a while. docs/decisions/0014 tells why, docs/operations.md what each state means.

ALTER TABLE credential_versions
  ADD COLUMN overlap_until timestamptz(6),
  ADD COLUMN account_id text CHECK (account_id ~ '^[0-9]{12}$'),
  ADD COLUMN principal_arn text,
  ADD COLUMN key_hint text,
  ADD CHECK (state <> 'previous' OR overlap_until IS NOT NULL);
COMMENT ON COLUMN credential_versions.overlap_until IS 'Of a previous version: until then it may sign calls.';
COMMENT ON COLUMN credential_versions.account_id IS 'Whose this version is; NULL: as its credential says.';
CREATE UNIQUE INDEX one_previous_version ON credential_versions (merchant_id, credential_id) WHERE state = 'previous';
CREATE UNIQUE INDEX one_pending_version ON credential_versions (merchant_id, credential_id) WHERE state = 'pending';

ALTER TABLE credentials
  ADD COLUMN approved_account_id text CHECK (approved_account_id ~ '^[0-9]{12}$'),
  ADD COLUMN approved_until timestamptz(6);
COMMENT ON COLUMN credentials.approved_account_id IS 'The other AWS account that an operator let the next rotation move to, once.';

-- One row for each rotation: what was begun, how far it came, and when somebody has to look at it next.
CREATE TABLE credential_rotations (
  merchant_id text NOT NULL,
  credential_id text NOT NULL,
  version integer NOT NULL,
  replaces integer NOT NULL,
  state text NOT NULL CHECK (state IN ('pending', 'overlap', 'retired', 'rolled-back', 'failed')),
  mode text NOT NULL CHECK (mode IN ('material', 'iam')),
  key_state text CHECK (key_state IN ('deactivated', 'deleted', 'none')),
  secret_name text NOT NULL,
  secret_version_id text NOT NULL,
  reason text,
  warnings text[] NOT NULL DEFAULT '{}',
  started_by text NOT NULL,
  started_at timestamptz(6) NOT NULL,
  promoted_at timestamptz(6),
  overlap_until timestamptz(6),
  ended_at timestamptz(6),
  changed_at timestamptz(6) NOT NULL,
  labelled text,
  due_at timestamptz(6),
  tries integer NOT NULL DEFAULT 0,
  PRIMARY KEY (merchant_id, credential_id, version),
  FOREIGN KEY (merchant_id, credential_id) REFERENCES credentials (merchant_id, id),
  CHECK ((state IN ('pending', 'overlap')) = (ended_at IS NULL)),
  CHECK (state <> 'overlap' OR overlap_until IS NOT NULL)
);
COMMENT ON COLUMN credential_rotations.version IS 'The new version; "replaces" is the one before.';
COMMENT ON COLUMN credential_rotations.mode IS 'material: the merchant handed the new key in. iam: we made it at IAM, and remove the one that is not needed any more.';
COMMENT ON COLUMN credential_rotations.key_state IS 'Of mode iam, when it is over: what was done at IAM with the key that is not needed any more; none: there is none.';
COMMENT ON COLUMN credential_rotations.labelled IS 'The state for which the labels in Secrets Manager were moved.';
COMMENT ON COLUMN credential_rotations.due_at IS 'When a process should go on with it, if the one that has it does not; NULL: nothing is left to do.';
CREATE UNIQUE INDEX one_open_rotation ON credential_rotations (merchant_id, credential_id) WHERE state IN ('pending', 'overlap');
CREATE INDEX credential_rotations_due ON credential_rotations (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX credential_rotations_changed ON credential_rotations (changed_at);

-- Each step is one function: it locks the merchant's audit head, looks at the state, writes the audit record and the change, or says why not.
-- Doing a step twice does it once. All time is the database's.

-- Ends the overlap when its time is over: the version before is shredded. False when it is not time, or was done.
CREATE FUNCTION rotation_retire(p_merchant text, p_credential text, p_version integer, p_actor text, p_request_id text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    r credential_rotations%ROWTYPE;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    IF r.state IS DISTINCT FROM 'overlap' OR r.overlap_until > clock_timestamp() THEN
      RETURN false;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'credential.version_retired', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('version', r.replaces, 'currentVersion', r.version)::text);
    UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.replaces AND state = 'previous';
    -- Who retires it moves the labels; another process only when that one dies over it.
    UPDATE credential_rotations SET state = 'retired', ended_at = clock_timestamp(), changed_at = clock_timestamp(), tries = 0,
        due_at = clock_timestamp() + interval '15 seconds'
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN true;
  END
  $$;

-- Begins one. p_rules: {mode, secretVersionId, minIntervalSeconds, leaseSeconds}. Answers {verdict: 'begun', version, replaces, secretName},
-- or 'missing', or 'in_progress' or 'too_soon' with retryAfterSeconds.
CREATE FUNCTION rotation_begin(p_merchant text, p_credential text, p_rules jsonb, p_actor text, p_request_id text) RETURNS jsonb
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    at timestamptz;
    c credentials%ROWTYPE;
    r credential_rotations%ROWTYPE;
    wait_seconds double precision;
    new_version integer;
    place text;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    at := clock_timestamp();
    SELECT * INTO c FROM credentials WHERE merchant_id = p_merchant AND id = p_credential AND state <> 'deleted';
    IF NOT FOUND THEN
      RETURN jsonb_build_object('verdict', 'missing');
    END IF;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND state IN ('pending', 'overlap');
    IF FOUND AND NOT rotation_retire(p_merchant, p_credential, r.version, p_actor, p_request_id) THEN
      RETURN jsonb_build_object('verdict', 'in_progress', 'state', r.state, 'version', r.version,
        'retryAfterSeconds', CASE r.state WHEN 'overlap' THEN greatest(1, ceil(extract(epoch FROM r.overlap_until - at))) ELSE 5 END);
    END IF;
    SELECT extract(epoch FROM max(promoted_at) - at) + (p_rules->>'minIntervalSeconds')::double precision INTO wait_seconds
      FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND state = 'retired';
    IF wait_seconds > 0 THEN
      RETURN jsonb_build_object('verdict', 'too_soon', 'retryAfterSeconds', ceil(wait_seconds));
    END IF;
    SELECT secret_name INTO STRICT place FROM credential_versions
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = c.current_version;
    SELECT 1 + greatest(
        (SELECT max(version) FROM credential_versions WHERE merchant_id = p_merchant AND credential_id = p_credential),
        (SELECT max(version) FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential))
      INTO new_version;
    PERFORM audit_append(p_merchant, p_actor, 'credential.rotation_started', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('version', new_version, 'replaces', c.current_version)::text);
    INSERT INTO credential_rotations (merchant_id, credential_id, version, replaces, state, mode, secret_name, secret_version_id, started_by,
      started_at, changed_at, due_at)
    VALUES (p_merchant, p_credential, new_version, c.current_version, 'pending', p_rules->>'mode', place, p_rules->>'secretVersionId', p_actor,
      at, at, at + make_interval(secs => (p_rules->>'leaseSeconds')::double precision));
    RETURN jsonb_build_object('verdict', 'begun', 'version', new_version, 'replaces', c.current_version, 'secretName', place);
  END
  $$;

-- The new version is sealed and can be opened from now on. False when the rotation is over.
CREATE FUNCTION rotation_sealed(p_merchant text, p_credential text, p_version integer, p_wrapped_key bytea, p_facts jsonb) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id, key_hint)
      SELECT r.merchant_id, r.credential_id, r.version, 'pending', p_wrapped_key, p_facts->>'kmsKeyArn', r.secret_name, r.secret_version_id, p_facts->>'keyHint'
      FROM credential_rotations r JOIN credentials c ON c.merchant_id = r.merchant_id AND c.id = r.credential_id AND c.state <> 'deleted'
      WHERE r.merchant_id = p_merchant AND r.credential_id = p_credential AND r.version = p_version AND r.state = 'pending';
    RETURN FOUND;
  END
  $$;

-- Puts the new version in force, the one before in its overlap: one commit, with its audit record. p_found: {accountId, arn, warnings}.
-- Answers 'promoted', 'account' (it is of another account than the credential, and nobody approved that), or how the rotation stands.
CREATE FUNCTION rotation_promote(p_merchant text, p_credential text, p_version integer, p_rules jsonb, p_found jsonb, p_actor text, p_request_id text)
  RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    at timestamptz;
    c credentials%ROWTYPE;
    r credential_rotations%ROWTYPE;
    new_row credential_versions%ROWTYPE;
    ends timestamptz;
    account text := p_found->>'accountId';
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    at := clock_timestamp();
    SELECT * INTO c FROM credentials WHERE merchant_id = p_merchant AND id = p_credential;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    SELECT * INTO new_row FROM credential_versions
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = 'pending';
    IF r.state IS DISTINCT FROM 'pending' OR c.state = 'deleted' OR new_row.version IS NULL THEN
      RETURN CASE WHEN r.state = 'pending' THEN 'missing' ELSE coalesce(r.state, 'missing') END;
    END IF;
    IF c.account_id IS DISTINCT FROM account AND c.account_id IS NOT NULL
       AND (account IS NULL OR c.approved_account_id IS DISTINCT FROM account OR c.approved_until <= at) THEN
      RETURN 'account';
    END IF;
    ends := at + make_interval(secs => (p_rules->>'overlapSeconds')::double precision);
    PERFORM audit_append(p_merchant, p_actor, 'credential.rotated', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('version', p_version, 'previous', r.replaces, 'accountId', account, 'keyHint', new_row.key_hint,
        'overlapSeconds', p_rules->'overlapSeconds')::text);
    UPDATE credential_versions SET state = 'previous', overlap_until = ends, account_id = c.account_id, principal_arn = c.principal_arn, key_hint = c.key_hint
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.replaces AND state = 'current';
    UPDATE credential_versions SET state = 'current', account_id = account, principal_arn = p_found->>'arn'
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    UPDATE credentials SET current_version = p_version, account_id = account, principal_arn = p_found->>'arn', key_hint = new_row.key_hint,
        approved_account_id = CASE WHEN c.account_id IS DISTINCT FROM account THEN NULL ELSE approved_account_id END,
        tested_at = at, test_result = 'ok'
      WHERE merchant_id = p_merchant AND id = p_credential;
    UPDATE credential_rotations SET state = 'overlap', promoted_at = at, overlap_until = ends, changed_at = at, tries = 0,
        warnings = ARRAY(SELECT jsonb_array_elements_text(p_found->'warnings')),
        due_at = at + make_interval(secs => (p_rules->>'leaseSeconds')::double precision)
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN 'promoted';
  END
  $$;

-- Gives a pending rotation up: its version is shredded, the current one stays. False when it is not pending any more.
CREATE FUNCTION rotation_fail(p_merchant text, p_credential text, p_version integer, p_reason text, p_actor text, p_request_id text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM credential_rotations
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = 'pending') THEN
      RETURN false;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'credential.rotation_failed', 'credential/' || p_credential, 'failed', p_request_id,
      jsonb_build_object('version', p_version, 'reason', p_reason)::text);
    UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = 'pending';
    UPDATE credential_rotations SET state = 'failed', reason = p_reason, ended_at = clock_timestamp(), changed_at = clock_timestamp(),
        due_at = clock_timestamp(), tries = 0
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN true;
  END
  $$;

-- Back to the version before, while its overlap lasts; the newer one is shredded at once. Answers its version, or NULL when there is no way back.
CREATE FUNCTION rotation_rollback(p_merchant text, p_credential text, p_lease_seconds double precision, p_actor text, p_request_id text) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    at timestamptz;
    r credential_rotations%ROWTYPE;
    old_row credential_versions%ROWTYPE;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    at := clock_timestamp();
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND state = 'overlap' AND overlap_until > at;
    SELECT * INTO old_row FROM credential_versions
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.replaces AND state = 'previous';
    IF r.version IS NULL OR old_row.version IS NULL THEN
      RETURN NULL;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'credential.rolled_back', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('version', r.replaces, 'retired', r.version)::text);
    UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = at
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.version;
    UPDATE credential_versions SET state = 'current', overlap_until = NULL
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.replaces;
    UPDATE credentials SET current_version = r.replaces, account_id = old_row.account_id, principal_arn = old_row.principal_arn, key_hint = old_row.key_hint
      WHERE merchant_id = p_merchant AND id = p_credential;
    UPDATE credential_rotations SET state = 'rolled-back', ended_at = at, changed_at = at, tries = 0,
        due_at = at + make_interval(secs => p_lease_seconds)
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.version;
    RETURN r.replaces;
  END
  $$;

-- The labels in Secrets Manager are as p_state wants them. What is left to do: the end of the overlap, the key at IAM, or nothing.
CREATE FUNCTION rotation_labelled(p_merchant text, p_credential text, p_version integer, p_state text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE credential_rotations SET labelled = state, tries = 0,
        due_at = CASE WHEN state = 'overlap' THEN overlap_until WHEN mode = 'iam' AND ended_at IS NOT NULL AND key_state IS NULL THEN clock_timestamp() END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = p_state;
    RETURN FOUND;
  END
  $$;

-- The key at IAM that a rotation left over was deactivated, or deleted, or there is none. A deactivated one is looked at again after p_grace_seconds.
CREATE FUNCTION rotation_key_done(p_merchant text, p_credential text, p_version integer, p_key_state text, p_grace_seconds double precision)
  RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    UPDATE credential_rotations SET key_state = p_key_state, tries = 0,
        due_at = CASE p_key_state WHEN 'deactivated' THEN clock_timestamp() + make_interval(secs => p_grace_seconds) END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND ended_at IS NOT NULL
        AND (key_state IS NULL OR (key_state = 'deactivated' AND p_key_state <> 'deactivated'));
    IF FOUND AND p_key_state <> 'none' THEN
      PERFORM audit_append(p_merchant, 'system', 'credential.key_' || p_key_state, 'credential/' || p_credential, 'allowed', 'rotation',
        jsonb_build_object('version', p_version)::text);
    END IF;
    RETURN true;
  END
  $$;

-- Takes one that is due, for p_lease_seconds; NULL when another process has it. Each time nothing comes of it, the next one waits longer.
CREATE FUNCTION rotation_take(p_merchant text, p_credential text, p_version integer, p_lease_seconds double precision, p_pending_seconds double precision)
  RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    r credential_rotations%ROWTYPE;
    at timestamptz := clock_timestamp();
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    SELECT * INTO r FROM credential_rotations
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND due_at <= at FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
    UPDATE credential_rotations SET tries = r.tries + 1, due_at = at + make_interval(secs => p_lease_seconds * least(power(2, r.tries), 32))
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN jsonb_build_object('state', r.state, 'mode', r.mode, 'keyState', r.key_state, 'labelled', r.labelled, 'overlapOver', r.overlap_until <= at,
      'overdue', r.started_at + make_interval(secs => p_pending_seconds) <= at);
  END
  $$;

-- An operator lets the next rotation move a credential to another AWS account, once and for a while. False when there is no such credential.
CREATE FUNCTION rotation_approve_account(p_merchant text, p_credential text, p_account text, p_rules jsonb, p_actor text, p_request_id text)
  RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM credentials WHERE merchant_id = p_merchant AND id = p_credential AND state <> 'deleted') THEN
      RETURN false;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'credential.account_approved', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('accountId', p_account, 'reason', p_rules->'reason')::text);
    UPDATE credentials SET approved_account_id = p_account,
        approved_until = clock_timestamp() + make_interval(secs => (p_rules->>'seconds')::double precision)
      WHERE merchant_id = p_merchant AND id = p_credential;
    RETURN true;
  END
  $$;

-- Questions across merchants -------------------------------------------------------------------------------------------

-- Which rotations wait for somebody.
CREATE FUNCTION rotations_due(p_limit integer) RETURNS TABLE (merchant_id text, credential_id text, version integer)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$ SELECT r.merchant_id, r.credential_id, r.version FROM credential_rotations r WHERE r.due_at <= clock_timestamp() ORDER BY r.due_at LIMIT p_limit $$;

-- What changed in the last p_seconds, so that every process forgets what it remembers: which version was current, and what is shredded.
CREATE FUNCTION rotations_changed(p_seconds double precision)
  RETURNS TABLE (merchant_id text, credential_id text, version integer, state text, shredded integer)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT r.merchant_id, r.credential_id, r.version, r.state,
      CASE r.state WHEN 'retired' THEN r.replaces WHEN 'rolled-back' THEN r.version WHEN 'failed' THEN r.version END
    FROM credential_rotations r WHERE r.changed_at > clock_timestamp() - make_interval(secs => p_seconds)
  $$;

-- Row security, owners, grants ------------------------------------------------------------------------------------------

ALTER TABLE credential_rotations ENABLE ROW LEVEL SECURITY;
ALTER TABLE credential_rotations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON credential_rotations USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()));
CREATE POLICY ops_reads ON credential_rotations FOR SELECT TO merchant_bedrock_ops USING (true);
ALTER TABLE credential_rotations OWNER TO merchant_bedrock_owner;
GRANT SELECT ON credential_rotations TO merchant_bedrock_app;
GRANT SELECT (merchant_id, credential_id, version, replaces, state, changed_at, due_at) ON credential_rotations TO merchant_bedrock_ops;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY[
    'rotation_begin(text, text, jsonb, text, text)', 'rotation_sealed(text, text, integer, bytea, jsonb)',
    'rotation_promote(text, text, integer, jsonb, jsonb, text, text)', 'rotation_fail(text, text, integer, text, text, text)',
    'rotation_rollback(text, text, double precision, text, text)', 'rotation_retire(text, text, integer, text, text)',
    'rotation_labelled(text, text, integer, text)',
    'rotation_key_done(text, text, integer, text, double precision)', 'rotation_take(text, text, integer, double precision, double precision)',
    'rotation_approve_account(text, text, text, jsonb, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  FOREACH signature IN ARRAY ARRAY['rotations_due(integer)', 'rotations_changed(double precision)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ops', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;

-- Admission: as before, but a previous version counts as live while its overlap lasts ------------------------------------------

CREATE OR REPLACE FUNCTION ledger_hold(p_process uuid, p_calls jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
  DECLARE
    merchants text[];
    states merchant_state[];
    at timestamptz;
    rows limit_row[];
    limited text[];
    bounded text[];
    careful text[] := '{}';
    answers jsonb[];
    live call_intent[];
    admitted call_intent[];
    charges charge[];
    one call_intent;
    held record;
  BEGIN
    -- A process that has not said yet that it lives: what it holds must be found when it is gone.
    IF NOT EXISTS (SELECT 1 FROM processes WHERE id = p_process) THEN
      PERFORM process_alive(p_process, 20);
    END IF;
    live := ARRAY(SELECT i FROM jsonb_populate_recordset(NULL::call_intent, p_calls) AS i);
    merchants := ARRAY(SELECT DISTINCT i.merchant_id FROM unnest(live) AS i ORDER BY 1);
    -- The heads first, always: they order the admissions, settlements, revocations and changes of limits of a merchant.
    PERFORM 1 FROM (SELECT 1 FROM audit_heads h WHERE h.merchant_id = ANY (merchants) ORDER BY h.merchant_id FOR UPDATE) AS locked;
    at := clock_timestamp();
    states := ARRAY(SELECT s FROM merchants_in_force(merchants, at) AS s);

    -- What a call depends on must be live and allowed now; this statement is what revocation relies on.
    SELECT array_agg(CASE WHEN v.verdict IS NOT NULL THEN jsonb_build_object('verdict', v.verdict) END ORDER BY i.pos) INTO answers
      FROM unnest(live) AS i
      LEFT JOIN unnest(states) AS s ON s.merchant_id = i.merchant_id AND s.status = 'active'
      LEFT JOIN api_keys k ON k.merchant_id = i.merchant_id AND k.id = i.api_key_id AND k.revoked_at IS NULL AND k.expires_at > at
      LEFT JOIN credentials c ON c.merchant_id = i.merchant_id AND c.id = i.credential_id AND c.state = 'active'
      LEFT JOIN credential_versions w ON w.merchant_id = i.merchant_id AND w.credential_id = c.id AND w.version = i.credential_version
        AND (w.state = 'current' OR (w.state = 'previous' AND w.overlap_until > at))
      CROSS JOIN LATERAL (SELECT CASE
        WHEN s.merchant_id IS NULL THEN 'merchant'
        WHEN i.api_key_id IS NOT NULL AND k.id IS NULL THEN 'api_key'
        WHEN i.merchant_revision <> s.revision THEN 'stale'
        WHEN i.source IN ('direct', 'session') AND NOT s.direct_allowed THEN 'source'
        WHEN i.source = 'service-default' AND NOT s.service_defaults_allowed THEN 'source'
        WHEN NOT coalesce(s.spec->'sources' ? i.source, true) THEN 'source'
        WHEN i.source = 'stored' AND w.version IS NULL THEN 'credential'
        WHEN NOT coalesce(s.spec->'regions' ? i.region, true) THEN 'region'
        WHEN s.spec ? 'models' AND NOT model_allowed(s.spec->'models', coalesce(i.base_model_id, i.model_id)) THEN 'model'
        WHEN i.output_tokens > (s.spec->>'maxTokens')::bigint AND (s.spec->>'whenOver' = 'refuse' OR NOT i.clampable) THEN 'max_tokens'
        WHEN i.price_id IS NULL AND i.input_tokens + i.output_tokens_most > 0
          AND 'hard' IN (s.spec->'nanoUsdPerDay'->>'mode', s.spec->'nanoUsdPerMonth'->>'mode', s.spec->'nanoUsdCredit'->>'mode') THEN 'unpriced'
        END) AS v (verdict);

    rows := limit_rows_of(states, ARRAY(SELECT n FROM unnest(live) AS i CROSS JOIN LATERAL scopes_of(i.merchant_id, i.api_key_id, i.end_user) AS n
                                        WHERE n.scope <> 'merchant'), at);
    limited := ARRAY(SELECT DISTINCT r.merchant_id FROM unnest(rows) AS r WHERE coalesce(r.requests_mode, r.tokens_mode, r.nano_mode, r.in_flight_mode) IS NOT NULL);
    bounded := ARRAY(SELECT DISTINCT r.merchant_id FROM unnest(rows) AS r WHERE 'hard' IN (r.tokens_mode, r.nano_mode));
    live := ARRAY(SELECT with_output(i, s.spec, i.merchant_id = ANY (bounded)) FROM unnest(live) AS i JOIN unnest(states) AS s USING (merchant_id)
                  WHERE answers[i.pos] IS NULL ORDER BY i.pos);

    -- All calls of a merchant at once where all fit; else each by itself, in order.
    charges := charges_of(rows, live);
    IF cardinality(limited) > 0 OR EXISTS (SELECT 1 FROM unnest(live) AS i WHERE i.key_hash IS NOT NULL) THEN
      careful := ARRAY(
        SELECT i.merchant_id FROM unnest(live) AS i WHERE i.key_hash IS NOT NULL
        UNION
        SELECT u.merchant_id FROM limit_use(charges) AS u WHERE u.mode IN ('hard', 'shadow') AND u.wanted > 0 AND u.used + u.wanted > u.maximum);
    END IF;
    IF careful = '{}' THEN
      PERFORM charge_counters(charges);
      admitted := live;
    ELSE
      PERFORM charge_counters(ARRAY(SELECT h FROM unnest(charges) AS h WHERE (h.row).merchant_id <> ALL (careful)));
      admitted := ARRAY(SELECT i FROM unnest(live) AS i WHERE i.merchant_id <> ALL (careful));
      FOREACH one IN ARRAY live LOOP
        CONTINUE WHEN one.merchant_id <> ALL (careful);
        SELECT h.admitted, h.answer INTO held FROM unnest(states) AS s CROSS JOIN LATERAL hold_carefully(one, rows, s.spec, at) AS h
          WHERE s.merchant_id = one.merchant_id;
        IF held.answer IS NULL THEN
          admitted := admitted || held.admitted;
        ELSE
          answers[one.pos] := held.answer;
        END IF;
      END LOOP;
    END IF;

    INSERT INTO calls (merchant_id, id, state, operation, model_id, base_model_id, region, account_id, credential_source, credential_id,
      credential_version, subject, api_key_id, end_user, request_id, client_invocation_id, created_at, deadline, process_id, tier, price_id,
      charged, max_tokens, hold_tokens, hold_nano, hold_images)
    SELECT i.merchant_id, i.id, 'held', i.operation, i.model_id, i.base_model_id, i.region, i.account_id, i.source, i.credential_id,
      i.credential_version, i.subject, i.api_key_id, i.end_user, i.request_id, i.client_invocation_id, at,
      at + make_interval(secs => i.deadline_seconds), p_process, i.tier, i.price_id,
      (SELECT bit_or(b.bits) FROM scopes_of(i.merchant_id, i.api_key_id, i.end_user) AS n JOIN
        (SELECT r.merchant_id, r.scope, r.scope_id, bit_or(r.bit) AS bits FROM unnest(rows) AS r GROUP BY 1, 2, 3) AS b USING (merchant_id, scope, scope_id)),
      i.output_tokens, i.hold_tokens, i.hold_nano, i.images
    FROM unnest(admitted) AS i;
    PERFORM audit_append_all(ARRAY(
      SELECT ROW(i.merchant_id, i.subject, 'call.admitted', 'call/' || i.id, 'allowed', i.request_id, jsonb_strip_nulls(jsonb_build_object(
        'operation', i.operation, 'modelId', i.model_id, 'region', i.region, 'accountId', i.account_id, 'source', i.source,
        'credentialId', i.credential_id, 'credentialVersion', i.credential_version, 'apiKeyId', i.api_key_id, 'holdTokens', i.hold_tokens,
        'holdNanoUsd', i.hold_nano))::text)::audit_entry
      FROM unnest(admitted) AS i));
    FOREACH one IN ARRAY admitted LOOP
      answers[one.pos] := jsonb_build_object('verdict', 'admitted', 'id', one.id, 'maxTokens', CASE WHEN one.clamped THEN one.output_tokens END);
    END LOOP;
    RETURN jsonb_build_object('answers', to_jsonb(answers), 'limits', CASE WHEN cardinality(limited) = 0 THEN '{}' ELSE limits_now(rows, at) END);
  END
  $$;
