-- Keys change while the service runs: the service's own (KMS, session key, pepper), API keys with an overlap, and reminders for merchants'.

-- API keys: a new pepper, and a successor ---------------------------------------------------------------------------------

ALTER TABLE api_keys ADD COLUMN rolled_to text, ADD FOREIGN KEY (merchant_id, rolled_to) REFERENCES api_keys (merchant_id, id);
COMMENT ON COLUMN api_keys.rolled_to IS 'The successor that a roll made; a key is rolled once.';

-- The hash of a token that was used, under a newer pepper. Only forward, and only over the hash that the token was compared with: of two
-- replicas one writes, and one that runs with the older settings never takes it back.
CREATE FUNCTION api_key_rehash(p_merchant text, p_id text, p_before bytea, p_after bytea, p_version integer) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE api_keys SET secret_hash = p_after, pepper_version = p_version
    WHERE merchant_id = p_merchant AND id = p_id AND secret_hash = p_before AND pepper_version < p_version;
    RETURN FOUND;
  END
  $$;

CREATE FUNCTION operator_key_rehash(p_id text, p_before bytea, p_after bytea, p_version integer) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    UPDATE operator_keys SET secret_hash = p_after, pepper_version = p_version
    WHERE id = p_id AND secret_hash = p_before AND pepper_version < p_version;
    RETURN FOUND;
  END
  $$;

-- A successor with the same name, scopes and life; the old key ends after the overlap, or when it would have anyway. p_successor: {id,
-- environment, pepperVersion}. Answers {state: 'rolled', name, scopes, expiresAt, oldExpiresAt} or {state: 'not_found' | 'not_usable'}, or
-- {state: 'rolled_before', successor}.
CREATE FUNCTION api_key_roll(p_merchant text, p_id text, p_successor jsonb, p_hash bytea, p_overlap_hours integer, p_actor text, p_request_id text)
  RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    old api_keys%ROWTYPE;
    at timestamptz;
    ends timestamptz;
    successor_ends timestamptz;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    -- The head first, as revoking does: it is what orders the two.
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT * INTO old FROM api_keys WHERE merchant_id = p_merchant AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
      RETURN jsonb_build_object('state', 'not_found');
    END IF;
    IF old.rolled_to IS NOT NULL THEN
      RETURN jsonb_build_object('state', 'rolled_before', 'successor', old.rolled_to);
    END IF;
    at := clock_timestamp();
    IF old.revoked_at IS NOT NULL OR old.expires_at <= at OR old.environment <> p_successor->>'environment' THEN
      RETURN jsonb_build_object('state', 'not_usable');
    END IF;
    ends := least(old.expires_at, at + make_interval(hours => p_overlap_hours));
    successor_ends := at + make_interval(days => least(365, greatest(1, round(extract(epoch FROM old.expires_at - old.created_at) / 86400)))::integer);
    PERFORM audit_append(p_merchant, p_actor, 'token.rolled', 'api-key/' || p_id, 'allowed', p_request_id,
      jsonb_build_object('successor', p_successor->>'id', 'scopes', old.scopes, 'oldExpiresAt', event_time(ends), 'expiresAt', event_time(successor_ends))::text);
    INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, created_at, expires_at)
    VALUES (p_merchant, p_successor->>'id', old.name, old.environment, p_hash, (p_successor->>'pepperVersion')::integer, old.scopes, p_actor, at, successor_ends);
    UPDATE api_keys SET expires_at = ends, rolled_to = p_successor->>'id' WHERE merchant_id = p_merchant AND id = p_id;
    RETURN jsonb_build_object('state', 'rolled', 'name', old.name, 'scopes', old.scopes, 'expiresAt', event_time(successor_ends), 'oldExpiresAt', event_time(ends));
  END
  $$;

-- Answers say which key seals them ------------------------------------------------------------------------------------------

ALTER TABLE idempotency_keys ADD COLUMN answer_key_id bytea;
COMMENT ON COLUMN idempotency_keys.answer_key_id IS 'Names the key that seals the answer, as the first bytes of webhooks.sealed do; NULL when a version that did not say so kept it.';

CREATE FUNCTION answer_keep_under(p_merchant text, p_call uuid, p_key_hash bytea, p_answer bytea, p_key_id bytea) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    kept boolean;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE idempotency_keys SET answer = p_answer, answer_key_id = p_key_id, answer_until = clock_timestamp() + interval '24 hours'
    WHERE merchant_id = p_merchant AND key_hash = p_key_hash AND call_id = p_call;
    kept := FOUND;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN kept;
  END
  $$;

-- For versions that run until they are replaced.
CREATE OR REPLACE FUNCTION answer_keep(p_merchant text, p_call uuid, p_key_hash bytea, p_answer bytea) RETURNS boolean LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$ SELECT answer_keep_under(p_merchant, p_call, p_key_hash, p_answer, NULL) $$;

-- What is under which key ---------------------------------------------------------------------------------------------------

-- key: the ARN of a KMS key; the id of a session key in hex, '' where it is not known; the version of a pepper.
CREATE FUNCTION keys_status() RETURNS TABLE (kind text, key text, count bigint)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT 'data-key', v.kms_key_arn, count(*) FROM credential_versions v WHERE v.state <> 'destroyed' GROUP BY 2
    UNION ALL SELECT 'webhook-secret', encode(substring(w.sealed FROM 1 FOR 8), 'hex'), count(*) FROM webhooks w GROUP BY 2
    UNION ALL SELECT 'answer', coalesce(encode(i.answer_key_id, 'hex'), ''), count(*) FROM idempotency_keys i WHERE i.answer_until > clock_timestamp() GROUP BY 2
    UNION ALL SELECT 'token', k.pepper_version::text, count(*) FROM api_keys k WHERE k.revoked_at IS NULL AND k.expires_at > clock_timestamp() GROUP BY 2
    UNION ALL SELECT 'operator-token', k.pepper_version::text, count(*) FROM operator_keys k WHERE k.revoked_at IS NULL AND k.expires_at > clock_timestamp() GROUP BY 2
    ORDER BY 1, 2
  $$;

-- Live keys whose token was not used since the pepper of p_version came: they keep an older one in use. merchant_id is NULL for operators'.
CREATE FUNCTION keys_below_pepper(p_version integer, p_limit integer)
  RETURNS TABLE (merchant_id text, id text, name text, pepper_version integer, expires_at timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT k.merchant_id, k.id, k.name, k.pepper_version, k.expires_at FROM api_keys k
    WHERE k.pepper_version < p_version AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
    UNION ALL
    SELECT NULL, k.id, k.name, k.pepper_version, k.expires_at FROM operator_keys k
    WHERE k.pepper_version < p_version AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
    ORDER BY 1 NULLS FIRST, 2 LIMIT p_limit
  $$;

-- Data keys under another KMS key: who has them; the wrapped keys themselves are not to be read across merchants.
CREATE FUNCTION data_keys_elsewhere(p_arn text, p_after_merchant text, p_after_credential text, p_after_version integer, p_limit integer)
  RETURNS TABLE (merchant_id text, credential_id text, version integer)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT v.merchant_id, v.credential_id, v.version FROM credential_versions v
    WHERE v.state <> 'destroyed' AND v.kms_key_arn <> p_arn AND (v.merchant_id, v.credential_id, v.version) > (p_after_merchant, p_after_credential, p_after_version)
    ORDER BY 1, 2, 3 LIMIT p_limit
  $$;

CREATE FUNCTION data_keys_take(p_arn text, p_after_merchant text, p_after_credential text, p_after_version integer, p_limit integer)
  RETURNS TABLE (merchant_id text, credential_id text, version integer, kms_key_arn text, wrapped_key bytea, secret_name text)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    one record;
  BEGIN
    FOR one IN SELECT * FROM data_keys_elsewhere(p_arn, p_after_merchant, p_after_credential, p_after_version, p_limit) LOOP
      PERFORM set_config('app.merchant_id', one.merchant_id, true);
      RETURN QUERY
        SELECT v.merchant_id, v.credential_id, v.version, v.kms_key_arn, v.wrapped_key, v.secret_name FROM credential_versions v
        WHERE v.merchant_id = one.merchant_id AND v.credential_id = one.credential_id AND v.version = one.version AND v.state <> 'destroyed';
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
  END
  $$;

-- p_keys: [{merchantId, credentialId, version, before, after}], wrapped keys in hex. Each is written only over the one that was wrapped anew,
-- so that a deletion, another rotation or another run is never undone. Answers how many were.
CREATE FUNCTION data_keys_rewrapped(p_keys jsonb, p_arn text, p_actor text, p_request_id text) RETURNS integer
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
      UPDATE credential_versions SET wrapped_key = decode(one.after, 'hex'), kms_key_arn = p_arn
      WHERE merchant_id = one."merchantId" AND credential_id = one."credentialId" AND version = one.version AND wrapped_key = decode(one.before, 'hex')
        -- What another run was faster with is not done again.
        AND kms_key_arn <> p_arn;
      written := written + CASE WHEN FOUND THEN 1 ELSE 0 END;
    END LOOP;
    IF written > 0 THEN
      PERFORM audit_append('~system', p_actor, 'keys.rewrapped', 'data-keys', 'allowed', p_request_id,
        jsonb_build_object('kmsKeyArn', p_arn, 'keys', written)::text);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN written;
  END
  $$;

-- Reminders -----------------------------------------------------------------------------------------------------------------

ALTER TABLE alerts DROP CONSTRAINT alerts_kind_check;
ALTER TABLE alerts ADD CONSTRAINT alerts_kind_check CHECK (kind IN ('threshold', 'forecast', 'overrun', 'rotation'));
ALTER TABLE webhooks DROP CONSTRAINT webhooks_events_check;
ALTER TABLE webhooks ADD CONSTRAINT webhooks_events_check CHECK (
  cardinality(events) > 0 AND events <@ ARRAY['alert.threshold', 'alert.forecast', 'alert.overrun', 'credential.rotation_due']);
CREATE INDEX credential_versions_by_age ON credential_versions (created_at) WHERE state = 'current';

CREATE TABLE chores (
  name text PRIMARY KEY,
  done_at timestamptz(3) NOT NULL
);
COMMENT ON TABLE chores IS 'Work that one replica does for all, and when one last did.';

-- One event of another name; all else is as in the migration webhooks.
CREATE OR REPLACE FUNCTION alert_goes_out() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    event_name text := CASE NEW.kind WHEN 'rotation' THEN 'credential.rotation_due' ELSE 'alert.' || NEW.kind END;
    event_body text := jsonb_build_object('type', event_name, 'timestamp', event_time(NEW.created_at), 'data', jsonb_build_object(
      'alertId', NEW.id, 'merchantId', NEW.merchant_id, 'kind', NEW.kind, 'scope', NEW.scope, 'scopeId', nullif(NEW.scope_id, ''),
      'limit', NEW.limit_name, 'periodStartsAt', event_time(NEW.starts_at), 'percent', NEW.threshold, 'used', NEW.used, 'max', NEW.maximum,
      'callId', NEW.call_id))::text;
  BEGIN
    DELETE FROM webhook_deliveries d WHERE d.merchant_id = NEW.merchant_id AND d.state <> 'pending'
      AND d.id < uuid_v7_floor(clock_timestamp() - interval '30 days');
    INSERT INTO webhook_deliveries (merchant_id, webhook_id, alert_id, event, body)
    SELECT NEW.merchant_id, w.id, NEW.id, event_name, event_body
    FROM (SELECT NULL AS id UNION ALL
          SELECT h.id FROM webhooks h WHERE h.merchant_id = NEW.merchant_id AND h.state = 'active' AND event_name = ANY (h.events)) AS w;
    RETURN NULL;
  END
  $$;

-- Keys of merchants that are in use for p_days: due at 100 %, overdue at 120 %, each once a version. Roles hold no key and are not counted.
-- With p_first it is a day's first part and begins only when nobody did that day: then it answers NULL. Else how many alerts were raised;
-- as many as p_limit: there may be more. Audit heads come first, in order of merchant, as in the ledger.
CREATE FUNCTION rotation_alerts(p_days integer, p_limit integer, p_first boolean) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    due record;
    raised integer := 0;
  BEGIN
    IF p_first THEN
      INSERT INTO chores AS c (name, done_at) VALUES ('rotation', clock_timestamp())
      ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at WHERE c.done_at <= excluded.done_at - interval '1 day';
      IF NOT FOUND THEN
        RETURN NULL;
      END IF;
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
    RETURN raised;
  END
  $$;

-- Owners, grants --------------------------------------------------------------------------------------------------------------

ALTER TABLE chores OWNER TO merchant_bedrock_owner;
GRANT SELECT, INSERT, UPDATE ON chores TO merchant_bedrock_ledger;
GRANT SELECT (answer_key_id) ON idempotency_keys TO merchant_bedrock_ops;
CREATE POLICY ops_reads ON credential_versions FOR SELECT TO merchant_bedrock_ops USING (true);
GRANT SELECT (merchant_id, credential_id, version, state, kms_key_arn) ON credential_versions TO merchant_bedrock_ops;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY['api_key_rehash(text, text, bytea, bytea, integer)', 'operator_key_rehash(text, bytea, bytea, integer)',
    'api_key_roll(text, text, jsonb, bytea, integer, text, text)', 'answer_keep_under(text, uuid, bytea, bytea, bytea)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  -- An administrator's: who owns the tables runs them.
  FOREACH signature IN ARRAY ARRAY['data_keys_take(text, text, text, integer, integer)', 'data_keys_rewrapped(jsonb, text, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
  END LOOP;
  FOREACH signature IN ARRAY ARRAY['keys_status()', 'keys_below_pepper(integer, integer)', 'data_keys_elsewhere(text, text, text, integer, integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ops', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_owner', signature);
  END LOOP;
  ALTER FUNCTION rotation_alerts(integer, integer, boolean) OWNER TO merchant_bedrock_ledger;
  REVOKE ALL ON FUNCTION rotation_alerts(integer, integer, boolean) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION rotation_alerts(integer, integer, boolean) TO merchant_bedrock_app;
END
$functions$;
