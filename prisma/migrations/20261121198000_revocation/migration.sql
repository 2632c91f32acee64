-- Taking a right away: keys revoked, credentials frozen and thawed, merchants closed for good, and what running streams ask for.

-- A key is revoked under the merchant's audit head, as everything that orders itself with admission. False when the merchant has no such key;
-- true also when it was revoked before.
CREATE FUNCTION api_key_revoke(p_merchant text, p_id text, p_actor text, p_request_id text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_key boolean;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    UPDATE api_keys SET revoked_at = clock_timestamp() WHERE merchant_id = p_merchant AND id = p_id AND revoked_at IS NULL;
    found_key := FOUND;
    IF found_key THEN
      PERFORM audit_append(p_merchant, p_actor, 'token.revoked', 'api-key/' || p_id, 'allowed', p_request_id, '{}');
    ELSE
      found_key := EXISTS (SELECT 1 FROM api_keys WHERE merchant_id = p_merchant AND id = p_id);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN found_key;
  END
  $$;

-- Freezes a credential, or thaws it. Answers the state it was in, NULL when there is none. Only 'active' can be frozen and only 'frozen' thawed:
-- what waits for its proof or failed it must not become usable this way. Doing it twice is done once.
CREATE FUNCTION credential_freeze(p_merchant text, p_id text, p_frozen boolean, p_reason text, p_actor text, p_request_id text) RETURNS text
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
      UPDATE credentials SET state = CASE WHEN p_frozen THEN 'frozen' ELSE 'active' END WHERE merchant_id = p_merchant AND id = p_id;
      PERFORM audit_append(p_merchant, p_actor, CASE WHEN p_frozen THEN 'credential.frozen' ELSE 'credential.thawed' END, 'credential/' || p_id,
        'allowed', p_request_id, jsonb_strip_nulls(jsonb_build_object('reason', p_reason))::text);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN before;
  END
  $$;

-- Closes a merchant for good: no key, no credential, no sealed secret and no kept answer of it is left; ledger and audit stay. Answers
-- {closed: whether it was this call that closed it, secrets: what lies in Secrets Manager and cannot be opened any more, and how many of what},
-- NULL when there is no such merchant. Rows of idempotency_keys go whole, so that a call that still runs finds no place for its answer.
CREATE FUNCTION merchant_close(p_merchant text, p_reason text, p_actor text, p_request_id text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
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

-- Closed is final, whoever asks: nothing opens such a merchant again, and nothing that opens something is added to it. A request that was
-- under way when it closed learns it here. P0410 is MERCHANT_CLOSED in src/persistence/errors.ts.
CREATE FUNCTION merchant_stays_closed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog
  AS $$ BEGIN RAISE EXCEPTION 'the merchant is closed' USING ERRCODE = 'P0410'; END $$;
CREATE TRIGGER merchant_stays_closed BEFORE UPDATE ON merchants FOR EACH ROW
  WHEN (OLD.status = 'closed' AND NEW.status <> 'closed') EXECUTE FUNCTION merchant_stays_closed();

CREATE FUNCTION not_of_the_closed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    IF EXISTS (SELECT 1 FROM merchants m WHERE m.id = NEW.merchant_id AND m.status = 'closed') THEN
      RAISE EXCEPTION 'the merchant is closed' USING ERRCODE = 'P0410';
    END IF;
    RETURN NEW;
  END
  $$;
CREATE TRIGGER not_of_the_closed BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION not_of_the_closed();
CREATE TRIGGER not_of_the_closed BEFORE INSERT ON credentials FOR EACH ROW EXECUTE FUNCTION not_of_the_closed();
CREATE TRIGGER not_of_the_closed BEFORE INSERT ON credential_versions FOR EACH ROW EXECUTE FUNCTION not_of_the_closed();
CREATE TRIGGER not_of_the_closed BEFORE INSERT ON webhooks FOR EACH ROW EXECUTE FUNCTION not_of_the_closed();

-- Which of these rights have ended, and by what. What runs asks every few seconds, all of a process at once. As ledger_hold asks before a call
-- starts, but without what only bounds a call, and with one difference: a version that was rotated away, also one that is shredded by now, may
-- finish what it began. Deleting a credential says so in its state.
CREATE TYPE held_right AS (pos integer, merchant_id text, api_key_id text, source text, credential_id text);
CREATE FUNCTION rights_ended(p_rights jsonb) RETURNS TABLE (pos integer, ended text) LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
    WITH held AS MATERIALIZED (SELECT * FROM jsonb_populate_recordset(NULL::held_right, p_rights))
    SELECT r.pos, v.ended
    FROM held AS r
    LEFT JOIN merchants_in_force(ARRAY(SELECT DISTINCT h.merchant_id FROM held h), clock_timestamp()) AS s ON s.merchant_id = r.merchant_id AND s.status = 'active'
    LEFT JOIN api_keys k ON k.merchant_id = r.merchant_id AND k.id = r.api_key_id AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
    LEFT JOIN credentials c ON c.merchant_id = r.merchant_id AND c.id = r.credential_id AND c.state = 'active'
    CROSS JOIN LATERAL (SELECT CASE
      WHEN s.merchant_id IS NULL THEN 'merchant'
      WHEN r.api_key_id IS NOT NULL AND k.id IS NULL THEN 'api_key'
      WHEN r.source IN ('direct', 'session') AND NOT s.direct_allowed THEN 'source'
      WHEN r.source = 'service-default' AND NOT s.service_defaults_allowed THEN 'source'
      WHEN NOT coalesce(s.spec->'sources' ? r.source, true) THEN 'source'
      WHEN r.source = 'stored' AND c.id IS NULL THEN 'credential'
      END) AS v (ended)
    WHERE v.ended IS NOT NULL
  $$;

-- Owners and grants -----------------------------------------------------------------------------------------------------

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY[
    'api_key_revoke(text, text, text, text)', 'credential_freeze(text, text, boolean, text, text, text)', 'merchant_close(text, text, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;
ALTER FUNCTION rights_ended(jsonb) OWNER TO merchant_bedrock_ledger;
REVOKE ALL ON FUNCTION rights_ended(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rights_ended(jsonb) TO merchant_bedrock_app;
