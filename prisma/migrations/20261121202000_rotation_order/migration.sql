-- Rotations in order: which key at IAM a rotation made is written down and not guessed, and no step of one waits for a step that it does not need.

ALTER TABLE credential_rotations
  ADD COLUMN key_asked_at timestamptz(6),
  ADD COLUMN made_key text,
  ADD COLUMN key_due_at timestamptz(6);
COMMENT ON COLUMN credential_rotations.key_asked_at IS 'Of mode iam: when a new key was about to be asked for; NULL: none was, or IAM refused.';
COMMENT ON COLUMN credential_rotations.made_key IS 'Of mode iam: hint of the key that was made, as soon as it is known.';
COMMENT ON COLUMN credential_rotations.key_due_at IS 'When the key that was deactivated may be deleted.';

-- As before; the labels are due at once.
CREATE OR REPLACE FUNCTION rotation_retire(p_merchant text, p_credential text, p_version integer, p_actor text, p_request_id text) RETURNS boolean
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
    UPDATE credential_rotations SET state = 'retired', ended_at = clock_timestamp(), changed_at = clock_timestamp(), tries = 0,
        due_at = clock_timestamp()
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN true;
  END
  $$;

-- As before, but: with mode iam, 'shared' where another credential is of the same IAM user, because its key would be taken for one left over;
-- and 'in_progress' while the version in force still bears AWSPENDING, which the next PutSecretValue would take from it and leave it without a label.
CREATE OR REPLACE FUNCTION rotation_begin(p_merchant text, p_credential text, p_rules jsonb, p_actor text, p_request_id text) RETURNS jsonb
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    at timestamptz;
    c credentials%ROWTYPE;
    r credential_rotations%ROWTYPE;
    wait_seconds double precision;
    other text;
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
    SELECT id INTO other FROM credentials WHERE merchant_id = p_merchant AND id <> p_credential AND state <> 'deleted' AND principal_arn = c.principal_arn LIMIT 1;
    IF FOUND AND p_rules->>'mode' = 'iam' THEN
      RETURN jsonb_build_object('verdict', 'shared', 'credentialId', other);
    END IF;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND state IN ('pending', 'overlap');
    IF FOUND AND NOT rotation_retire(p_merchant, p_credential, r.version, p_actor, p_request_id) THEN
      RETURN jsonb_build_object('verdict', 'in_progress', 'state', r.state, 'version', r.version,
        'retryAfterSeconds', CASE r.state WHEN 'overlap' THEN greatest(1, ceil(extract(epoch FROM r.overlap_until - at))) ELSE 5 END);
    END IF;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = c.current_version
      AND labelled IS NULL;
    IF FOUND THEN
      RETURN jsonb_build_object('verdict', 'in_progress', 'state', r.state, 'version', r.version,
        'retryAfterSeconds', greatest(5, ceil(extract(epoch FROM r.due_at - at))));
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

-- As before; and where no key was asked for at IAM, none is left over.
CREATE OR REPLACE FUNCTION rotation_fail(p_merchant text, p_credential text, p_version integer, p_reason text, p_actor text, p_request_id text) RETURNS boolean
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
        due_at = clock_timestamp(), tries = 0,
        key_state = CASE WHEN mode = 'iam' AND key_asked_at IS NULL AND NOT EXISTS (SELECT 1 FROM credential_versions v
          WHERE v.merchant_id = p_merchant AND v.credential_id = p_credential AND v.version = p_version) THEN 'none' END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN true;
  END
  $$;

-- What is known of the key that a rotation of mode iam makes: it is about to be asked for ('asked'), IAM refused ('refused'), or it is this one ('made').
-- False when the rotation is over, so that none is asked for any more.
CREATE FUNCTION rotation_key_noted(p_merchant text, p_credential text, p_version integer, p_note text, p_hint text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE credential_rotations SET made_key = p_hint,
        key_asked_at = CASE p_note WHEN 'asked' THEN clock_timestamp() WHEN 'made' THEN key_asked_at END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND mode = 'iam' AND (state = 'pending' OR p_note = 'made');
    RETURN FOUND;
  END
  $$;

-- As before; where the key went first, it is not forgotten.
CREATE OR REPLACE FUNCTION rotation_labelled(p_merchant text, p_credential text, p_version integer, p_state text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE credential_rotations SET labelled = state, tries = 0,
        due_at = CASE WHEN state = 'overlap' THEN overlap_until WHEN mode = 'iam' AND ended_at IS NOT NULL AND key_state IS NULL THEN clock_timestamp() ELSE key_due_at END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = p_state;
    RETURN FOUND;
  END
  $$;

-- As before; where the labels are not moved, they stay due.
CREATE OR REPLACE FUNCTION rotation_key_done(p_merchant text, p_credential text, p_version integer, p_key_state text, p_grace_seconds double precision)
  RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    UPDATE credential_rotations SET key_state = p_key_state,
        key_due_at = CASE p_key_state WHEN 'deactivated' THEN clock_timestamp() + make_interval(secs => p_grace_seconds) END,
        tries = CASE WHEN labelled = state THEN 0 ELSE tries END,
        due_at = CASE WHEN labelled = state THEN CASE p_key_state WHEN 'deactivated' THEN clock_timestamp() + make_interval(secs => p_grace_seconds) END
          ELSE due_at END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND ended_at IS NOT NULL
        AND (key_state IS NULL OR (key_state = 'deactivated' AND p_key_state <> 'deactivated'));
    IF FOUND AND p_key_state <> 'none' THEN
      PERFORM audit_append(p_merchant, 'system', 'credential.key_' || p_key_state, 'credential/' || p_credential, 'allowed', 'rotation',
        jsonb_build_object('version', p_version)::text);
    END IF;
    RETURN true;
  END
  $$;

-- As before, but the end of an overlap, and of the time that a pending one has, is never slept over.
CREATE OR REPLACE FUNCTION rotation_take(p_merchant text, p_credential text, p_version integer, p_lease_seconds double precision, p_pending_seconds double precision)
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
    UPDATE credential_rotations SET tries = r.tries + 1, due_at = least(at + make_interval(secs => p_lease_seconds * least(power(2, r.tries), 32)),
        (SELECT t.ends FROM (VALUES ('overlap', r.overlap_until), ('pending', r.started_at + make_interval(secs => p_pending_seconds))) AS t (state, ends)
          WHERE t.state = r.state AND t.ends > at))
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN jsonb_build_object('state', r.state, 'mode', r.mode, 'keyState', r.key_state, 'labelled', r.labelled, 'overlapOver', r.overlap_until <= at,
      'keyDue', coalesce(r.key_due_at <= at, true),
      'overdue', r.started_at + make_interval(secs => p_pending_seconds) <= at);
  END
  $$;

-- Overlaps that are over, due or not: ending one is a matter of the database alone.
CREATE FUNCTION rotations_over(p_limit integer) RETURNS TABLE (merchant_id text, credential_id text, version integer)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT r.merchant_id, r.credential_id, r.version FROM credential_rotations r
    WHERE r.state = 'overlap' AND r.overlap_until <= clock_timestamp() ORDER BY r.overlap_until LIMIT p_limit
  $$;

COMMENT ON FUNCTION rotation_rollback(text, text, double precision, text, text) IS
  'The newer version is destroyed before the one before is current again: one_current_version allows no moment with two.';

GRANT SELECT (overlap_until) ON credential_rotations TO merchant_bedrock_ops;
ALTER FUNCTION rotation_key_noted(text, text, integer, text, text) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION rotation_key_noted(text, text, integer, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rotation_key_noted(text, text, integer, text, text) TO merchant_bedrock_app;
ALTER FUNCTION rotations_over(integer) OWNER TO merchant_bedrock_ops;
REVOKE ALL ON FUNCTION rotations_over(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rotations_over(integer) TO merchant_bedrock_app;
