-- What is tried for long goes on, one row that fails keeps no other from its turn, and of a key at IAM is said only what was done with it.

ALTER TABLE credential_rotations
  ADD COLUMN key_deletion_asked_at timestamptz(6),
  DROP CONSTRAINT credential_rotations_key_state_check,
  ADD CONSTRAINT credential_rotations_key_state_check CHECK (key_state IN ('deactivated', 'deleted', 'left', 'none'));
COMMENT ON COLUMN credential_rotations.key_state IS
  'Of mode iam, when it is over: what was done at IAM with the key that is not needed any more; left: it is another IAM user''s by now; none: there is none, or it is its owner''s.';
COMMENT ON COLUMN credential_rotations.key_deletion_asked_at IS 'When IAM was about to be asked to delete the key; NULL: it was not, or it refused.';

-- As before, but for a number of tries of which 2 to the power is too large for any type.
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
    UPDATE credential_rotations SET tries = r.tries + 1, due_at = least(at + make_interval(secs => p_lease_seconds * power(2, least(r.tries, 5))),
        (SELECT t.ends FROM (VALUES ('overlap', r.overlap_until), ('pending', r.started_at + make_interval(secs => p_pending_seconds))) AS t (state, ends)
          WHERE t.state = r.state AND t.ends > at))
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN jsonb_build_object('state', r.state, 'mode', r.mode, 'keyState', r.key_state, 'labelled', r.labelled, 'overlapOver', r.overlap_until <= at,
      'keyDue', coalesce(r.key_due_at <= at, true),
      'overdue', r.started_at + make_interval(secs => p_pending_seconds) <= at);
  END
  $$;

-- One that could not be taken lets the others go first. It reads nothing of the row that may be what went wrong. False when it is not due any more.
CREATE FUNCTION rotation_put_off(p_merchant text, p_credential text, p_version integer, p_seconds double precision) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE credential_rotations SET due_at = clock_timestamp() + make_interval(secs => p_seconds)
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND due_at <= clock_timestamp();
    RETURN FOUND;
  END
  $$;

-- Which rotations wait for somebody, past the first p_past of them: those that could be neither taken nor put off.
CREATE FUNCTION rotations_due_past(p_limit integer, p_past integer) RETURNS TABLE (merchant_id text, credential_id text, version integer)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT r.merchant_id, r.credential_id, r.version FROM credential_rotations r WHERE r.due_at <= clock_timestamp()
    ORDER BY r.due_at, 1, 2, 3 LIMIT p_limit OFFSET p_past
  $$;

-- The key at IAM that a rotation left over is about to be deleted there (p_asked), or IAM refused. False when it is not ours to delete any more.
CREATE FUNCTION rotation_key_deletion(p_merchant text, p_credential text, p_version integer, p_asked boolean) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE credential_rotations SET key_deletion_asked_at = CASE WHEN p_asked THEN clock_timestamp() END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND key_state = 'deactivated';
    RETURN FOUND;
  END
  $$;

-- As before; of one that is left the record says which it is, as far as that is known, whose, and whether we deactivated it.
CREATE OR REPLACE FUNCTION rotation_key_done(p_merchant text, p_credential text, p_version integer, p_key_state text, p_grace_seconds double precision)
  RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    r credential_rotations%ROWTYPE;
    body jsonb := jsonb_build_object('version', p_version);
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    UPDATE credential_rotations SET key_state = p_key_state,
        key_due_at = CASE p_key_state WHEN 'deactivated' THEN clock_timestamp() + make_interval(secs => p_grace_seconds) END,
        tries = CASE WHEN labelled = state THEN 0 ELSE tries END,
        due_at = CASE WHEN labelled = state THEN CASE p_key_state WHEN 'deactivated' THEN clock_timestamp() + make_interval(secs => p_grace_seconds) END
          ELSE due_at END
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND ended_at IS NOT NULL
        AND (key_state IS NULL OR (key_state = 'deactivated' AND p_key_state <> 'deactivated'));
    IF FOUND AND p_key_state <> 'none' THEN
      IF p_key_state = 'left' THEN
        SELECT body || jsonb_build_object('deactivated', r.key_state IS NOT NULL, 'principalArn', max(v.principal_arn) FILTER (WHERE v.version = r.replaces),
            'keyHint', CASE r.state WHEN 'retired' THEN max(v.key_hint) FILTER (WHERE v.version = r.replaces)
              ELSE coalesce(r.made_key, max(v.key_hint) FILTER (WHERE v.version = r.version)) END)
          INTO body FROM credential_versions v
          WHERE v.merchant_id = p_merchant AND v.credential_id = p_credential AND v.version IN (r.replaces, r.version);
      END IF;
      PERFORM audit_append(p_merchant, 'system', 'credential.key_' || p_key_state, 'credential/' || p_credential, 'allowed', 'rotation', body::text);
    END IF;
    RETURN true;
  END
  $$;

-- Reminders: a day is done when its last part is. Until then whoever does it has the time that one part takes at most, and after that another goes on.
ALTER TABLE chores ADD COLUMN leased_until timestamptz(3);
COMMENT ON TABLE chores IS 'Work that one replica does for all, and when one last ended it.';
COMMENT ON COLUMN chores.leased_until IS 'Until then the replica that does it has it for itself.';

-- As before, but for when the day is done. Where two do one part all the same, each alert is raised once: it is unique.
CREATE OR REPLACE FUNCTION rotation_alerts(p_days integer, p_limit integer, p_first boolean) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    due record;
    raised integer := 0;
    at timestamptz := clock_timestamp();
  BEGIN
    INSERT INTO chores AS c (name, done_at, leased_until) VALUES ('rotation', '-infinity', at + interval '1 minute')
    ON CONFLICT (name) DO UPDATE SET leased_until = excluded.leased_until
      WHERE NOT p_first OR (c.done_at <= at - interval '1 day' AND coalesce(c.leased_until <= at, true));
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
    FOR due IN
      SELECT v.merchant_id, v.credential_id, v.created_at, t.percent, floor(extract(epoch FROM clock_timestamp() - v.created_at) / 86400)::bigint AS days
      FROM credential_versions v JOIN credentials c ON c.merchant_id = v.merchant_id AND c.id = v.credential_id
      CROSS JOIN LATERAL (SELECT CASE WHEN v.created_at <= clock_timestamp() - 1.2 * make_interval(days => p_days) THEN 120 ELSE 100 END AS percent) AS t
      WHERE v.state = 'current' AND v.created_at <= clock_timestamp() - make_interval(days => p_days)
        AND c.state <> 'deleted' AND c.kind IN ('access-key', 'bedrock-api-key')
        AND NOT EXISTS (SELECT 1 FROM alerts a WHERE a.merchant_id = v.merchant_id AND a.kind = 'rotation' AND a.scope = 'credential'
          AND a.scope_id = v.credential_id AND a.starts_at = v.created_at::timestamptz(3) AND a.threshold >= t.percent)
      ORDER BY 1, 2 LIMIT p_limit
    LOOP
      PERFORM 1 FROM audit_heads h WHERE h.merchant_id = due.merchant_id FOR UPDATE;
      INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used, maximum)
      VALUES (due.merchant_id, uuid_v7(), 'rotation', 'credential', due.credential_id, 'rotation', due.created_at, due.percent, due.days, p_days)
      ON CONFLICT DO NOTHING;
      raised := raised + 1;
    END LOOP;
    IF raised < p_limit THEN
      UPDATE chores SET done_at = clock_timestamp(), leased_until = NULL WHERE name = 'rotation';
    END IF;
    RETURN raised;
  END
  $$;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY['rotation_take(text, text, integer, double precision, double precision)',
    'rotation_put_off(text, text, integer, double precision)', 'rotation_key_deletion(text, text, integer, boolean)',
    'rotation_key_done(text, text, integer, text, double precision)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  ALTER FUNCTION rotations_due_past(integer, integer) OWNER TO merchant_bedrock_ops;
  REVOKE ALL ON FUNCTION rotations_due_past(integer, integer) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION rotations_due_past(integer, integer) TO merchant_bedrock_app;
  ALTER FUNCTION rotation_alerts(integer, integer, boolean) OWNER TO merchant_bedrock_ledger;
  REVOKE ALL ON FUNCTION rotation_alerts(integer, integer, boolean) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION rotation_alerts(integer, integer, boolean) TO merchant_bedrock_app;
END
$functions$;
