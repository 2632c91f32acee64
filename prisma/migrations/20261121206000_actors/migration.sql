-- Whoever does something is asked for its right once more where it is done: in the transaction of the effect, by the statement that records it.
-- A request may have been let in long before, while its body was on the way.

-- Raises when the right of an actor has ended: P0401, its key was revoked or has expired; P0403, its merchant is not active (src/persistence/errors.ts).
-- Actors without a key here (the service itself, an administrator's command) have nothing that could end. The audit head of the merchant must be
-- locked: it orders this and api_key_revoke or merchant_change. The row of an operator's key is locked for the same reason.
CREATE FUNCTION actor_must_hold(p_merchant text, p_actor text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    kind text := split_part(p_actor, ':', 1);
    key_id text := substr(p_actor, strpos(p_actor, ':') + 1);
    ended boolean;
  BEGIN
    IF kind = 'operator' THEN
      SELECT k.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp() INTO ended FROM operator_keys k WHERE k.id = key_id FOR SHARE;
    ELSIF kind = 'api-key' THEN
      SELECT k.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp() INTO ended FROM api_keys k WHERE k.merchant_id = p_merchant AND k.id = key_id;
    END IF;
    IF ended THEN
      RAISE EXCEPTION 'the key has ended' USING ERRCODE = 'P0401';
    END IF;
    IF kind IN ('api-key', 'jwt', 'dev') AND EXISTS (SELECT 1 FROM merchants m WHERE m.id = p_merchant AND m.status <> 'active') THEN
      RAISE EXCEPTION 'the merchant is not active' USING ERRCODE = 'P0403';
    END IF;
  END
  $$;

-- As before, and refuses what somebody does whose right has ended. What was denied or failed is written all the same: it has no effect.
CREATE OR REPLACE FUNCTION audit_append(p_merchant text, p_actor text, p_action text, p_resource text, p_outcome text, p_request_id text, p_body text)
  RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    previous_tenant text := current_setting('app.merchant_id', true);
    appended bigint;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    INSERT INTO audit_heads VALUES (p_merchant, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    PERFORM audit_append_all(ARRAY[ROW(p_merchant, p_actor, p_action, p_resource, p_outcome, p_request_id, p_body)::audit_entry]);
    IF p_outcome = 'allowed' THEN
      PERFORM actor_must_hold(p_merchant, p_actor);
    END IF;
    SELECT h.seq INTO appended FROM audit_heads h WHERE h.merchant_id = p_merchant;
    PERFORM set_config('app.merchant_id', coalesce(previous_tenant, ''), true);
    RETURN appended;
  END
  $$;

-- As before, but the event first: a key may revoke itself, and not once it is revoked.
CREATE OR REPLACE FUNCTION api_key_revoke(p_merchant text, p_id text, p_actor text, p_request_id text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_key boolean;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    found_key := EXISTS (SELECT 1 FROM api_keys WHERE merchant_id = p_merchant AND id = p_id);
    IF EXISTS (SELECT 1 FROM api_keys WHERE merchant_id = p_merchant AND id = p_id AND revoked_at IS NULL) THEN
      PERFORM audit_append(p_merchant, p_actor, 'token.revoked', 'api-key/' || p_id, 'allowed', p_request_id, '{}');
      UPDATE api_keys SET revoked_at = clock_timestamp() WHERE merchant_id = p_merchant AND id = p_id;
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN found_key;
  END
  $$;

-- As in the migration reconcile, and the operator's key must hold.
CREATE OR REPLACE FUNCTION call_resolve(p_merchant text, p_call uuid, p_outcome jsonb, p_reason text, p_actor text, p_request_id text)
  RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_state text;
  BEGIN
    PERFORM 1 FROM audit_heads h WHERE h.merchant_id = p_merchant FOR UPDATE;
    PERFORM actor_must_hold(p_merchant, p_actor);
    SELECT c.state INTO found_state FROM calls c WHERE c.merchant_id = p_merchant AND c.id = p_call;
    IF found_state IS DISTINCT FROM 'unknown' THEN
      RETURN coalesce(found_state, 'missing');
    END IF;
    PERFORM audit_append_all(ARRAY[ROW(p_merchant, p_actor, 'call.decided', 'call/' || p_call, 'allowed', p_request_id,
      (p_outcome || jsonb_build_object('reason', p_reason))::text)::audit_entry]);
    PERFORM ledger_settle(jsonb_build_array(p_outcome || jsonb_build_object('merchant_id', p_merchant, 'pos', 1, 'id', p_call)));
    RETURN 'done';
  END
  $$;

ALTER FUNCTION actor_must_hold(text, text) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION actor_must_hold(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION actor_must_hold(text, text) TO merchant_bedrock_ledger;
