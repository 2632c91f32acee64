-- Alerts leave the house: webhooks, and the outbox that alerts fill in their own transaction. docs/decisions/0009 tells why it is so.

CREATE TABLE webhooks (
  merchant_id text NOT NULL REFERENCES merchants (id),
  id text NOT NULL CHECK (id ~ '^wh_[0-9A-Za-z]{22}$'),
  url text NOT NULL CHECK (length(url) <= 2048),
  sealed bytea NOT NULL,
  events text[] NOT NULL CHECK (cardinality(events) > 0 AND events <@ ARRAY['alert.threshold', 'alert.forecast', 'alert.overrun']),
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  created_by text NOT NULL,
  PRIMARY KEY (merchant_id, id)
);
COMMENT ON COLUMN webhooks.sealed IS 'The signing secret, sealed under a key the database does not have (src/ledger/webhook-secrets.ts). Read by webhook_deliveries_take only.';

CREATE TABLE webhook_deliveries (
  merchant_id text NOT NULL,
  id uuid NOT NULL DEFAULT uuid_v7(),
  webhook_id text,
  alert_id uuid,
  event text NOT NULL,
  body text NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  next_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  lease uuid,
  last_status integer,
  last_error text,
  delivered_at timestamptz(3) CHECK ((delivered_at IS NOT NULL) = (state = 'delivered')),
  PRIMARY KEY (merchant_id, id),
  FOREIGN KEY (merchant_id, webhook_id) REFERENCES webhooks (merchant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE webhook_deliveries IS 'The outbox: one row of each alert for each webhook that wants it, and one without a webhook, which is written to our log. Delivered at least once, always under the same id.';
COMMENT ON COLUMN webhook_deliveries.next_at IS 'When it is due; while somebody sends it, when that somebody is given up.';
COMMENT ON COLUMN webhook_deliveries.lease IS 'Names one attempt: only who made the last one may write its result.';
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (merchant_id, next_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (merchant_id, webhook_id, id);

-- The outbox is filled --------------------------------------------------------------------------------------------------

CREATE FUNCTION event_time(at timestamptz) RETURNS text LANGUAGE sql STABLE
  AS $$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- In the transaction of the alert: both are committed or neither. A row trigger, because nearly every settlement raises none.
-- What is done with is forgotten after 30 days, where there is news.
CREATE FUNCTION alert_goes_out() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    event_name text := 'alert.' || NEW.kind;
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
CREATE TRIGGER alert_goes_out AFTER INSERT ON alerts FOR EACH ROW EXECUTE FUNCTION alert_goes_out();

-- The outbox is emptied -------------------------------------------------------------------------------------------------

-- What is due, at most p_each of one merchant and none of p_busy: one slow receiver must not hold up everybody's. One index probe a merchant.
CREATE FUNCTION webhook_deliveries_due(p_limit integer, p_each integer, p_busy text[]) RETURNS TABLE (merchant_id text, id uuid)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    WITH RECURSIVE waiting (merchant) AS (
      (SELECT o.merchant_id FROM webhook_deliveries o WHERE o.state = 'pending' ORDER BY o.merchant_id LIMIT 1)
      UNION ALL
      SELECT (SELECT o.merchant_id FROM webhook_deliveries o WHERE o.state = 'pending' AND o.merchant_id > w.merchant ORDER BY o.merchant_id LIMIT 1)
      FROM waiting w WHERE w.merchant IS NOT NULL)
    SELECT d.merchant_id, d.id
    FROM waiting w CROSS JOIN LATERAL (
      SELECT o.merchant_id, o.id, o.next_at FROM webhook_deliveries o
      WHERE o.merchant_id = w.merchant AND o.state = 'pending' AND o.next_at <= now() ORDER BY o.next_at LIMIT p_each) AS d
    WHERE w.merchant <> ALL (p_busy)
    ORDER BY d.next_at LIMIT p_limit
  $$;

-- Takes what is due, for p_lease_seconds: until then nobody else gets it. Rows that another replica takes at this moment are left to it.
CREATE FUNCTION webhook_deliveries_take(p_limit integer, p_lease_seconds double precision, p_each integer, p_busy text[])
  RETURNS TABLE (merchant_id text, id uuid, lease uuid, attempt integer, event text, body text, webhook_id text, url text, sealed bytea)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    due record;
  BEGIN
    FOR due IN
      SELECT d.merchant_id AS merchant, array_agg(d.id) AS ids FROM webhook_deliveries_due(p_limit, p_each, p_busy) AS d GROUP BY 1 ORDER BY 1
    LOOP
      PERFORM set_config('app.merchant_id', due.merchant, true);
      RETURN QUERY
        WITH mine AS (
          SELECT o.id FROM webhook_deliveries o
          WHERE o.merchant_id = due.merchant AND o.id = ANY (due.ids) AND o.state = 'pending' AND o.next_at <= clock_timestamp()
          FOR UPDATE SKIP LOCKED),
        taken AS (
          UPDATE webhook_deliveries AS o SET attempts = o.attempts + 1, lease = gen_random_uuid(),
            next_at = clock_timestamp() + make_interval(secs => p_lease_seconds)
          FROM mine WHERE o.merchant_id = due.merchant AND o.id = mine.id RETURNING o.*)
        SELECT t.merchant_id, t.id, t.lease, t.attempts, t.event, t.body, t.webhook_id, w.url, w.sealed
        FROM taken t LEFT JOIN webhooks w ON w.merchant_id = t.merchant_id AND w.id = t.webhook_id;
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
  END
  $$;

-- Writes what became of an attempt: {state: delivered | pending | dead, status, error, retrySeconds, gone}. gone: the receiver wants no more,
-- so the webhook is disabled. False when the attempt was given up meanwhile, or the webhook deleted.
CREATE FUNCTION webhook_delivery_done(p_merchant text, p_id uuid, p_lease uuid, p_result jsonb) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    gone boolean := coalesce((p_result->>'gone')::boolean, false);
    done webhook_deliveries%ROWTYPE;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    IF gone THEN
      PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    END IF;
    UPDATE webhook_deliveries AS d SET state = p_result->>'state', lease = NULL, last_status = (p_result->>'status')::integer,
      last_error = p_result->>'error', delivered_at = CASE p_result->>'state' WHEN 'delivered' THEN clock_timestamp() END,
      next_at = clock_timestamp() + make_interval(secs => coalesce((p_result->>'retrySeconds')::double precision, 0))
    WHERE d.merchant_id = p_merchant AND d.id = p_id AND d.lease = p_lease AND d.state = 'pending' RETURNING * INTO done;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    IF gone THEN
      UPDATE webhooks SET state = 'disabled' WHERE merchant_id = p_merchant AND id = done.webhook_id AND state = 'active';
      IF FOUND THEN
        PERFORM audit_append(p_merchant, 'system', 'webhook.disabled', 'webhook/' || done.webhook_id, 'allowed', p_id::text,
          jsonb_build_object('reason', 'the receiver answered 410')::text);
      END IF;
      UPDATE webhook_deliveries SET state = 'dead', last_error = 'the webhook was disabled', lease = NULL
      WHERE merchant_id = p_merchant AND webhook_id = done.webhook_id AND state = 'pending';
    END IF;
    RETURN true;
  END
  $$;

-- What merchants do with them: by these functions only, each with its audit record ---------------------------------------------

-- Answers 'done', or 'too_many' when the merchant has p_most already.
CREATE FUNCTION webhook_create(p_merchant text, p_webhook jsonb, p_sealed bytea, p_most integer, p_actor text, p_request_id text) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF (SELECT count(*) FROM webhooks WHERE merchant_id = p_merchant) >= p_most THEN
      RETURN 'too_many';
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'webhook.created', 'webhook/' || (p_webhook->>'id'), 'allowed', p_request_id,
      jsonb_build_object('host', p_webhook->>'host', 'events', p_webhook->'events')::text);
    INSERT INTO webhooks (merchant_id, id, url, sealed, events, created_by)
    VALUES (p_merchant, p_webhook->>'id', p_webhook->>'url', p_sealed, ARRAY(SELECT jsonb_array_elements_text(p_webhook->'events')), p_actor);
    RETURN 'done';
  END
  $$;

-- With its deliveries; false when there is none.
CREATE FUNCTION webhook_delete(p_merchant text, p_id text, p_actor text, p_request_id text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM webhooks WHERE merchant_id = p_merchant AND id = p_id) THEN
      RETURN false;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'webhook.deleted', 'webhook/' || p_id, 'allowed', p_request_id, '{}');
    DELETE FROM webhooks WHERE merchant_id = p_merchant AND id = p_id;
    RETURN true;
  END
  $$;

-- Puts a test event into the outbox. Answers its id, or 'webhook' (no such one), 'disabled'.
CREATE FUNCTION webhook_test(p_merchant text, p_id text, p_actor text, p_request_id text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_state text;
    made uuid := uuid_v7();
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT state INTO found_state FROM webhooks WHERE merchant_id = p_merchant AND id = p_id;
    IF found_state IS DISTINCT FROM 'active' THEN
      RETURN coalesce(found_state, 'webhook');
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'webhook.tested', 'webhook/' || p_id, 'allowed', p_request_id,
      jsonb_build_object('deliveryId', made)::text);
    INSERT INTO webhook_deliveries (merchant_id, id, webhook_id, event, body) VALUES (p_merchant, made, p_id, 'webhook.test', jsonb_build_object(
      'type', 'webhook.test', 'timestamp', event_time(clock_timestamp()), 'data', jsonb_build_object('merchantId', p_merchant, 'webhookId', p_id))::text);
    RETURN made::text;
  END
  $$;

-- Sends what is over once more, from the first attempt on and under the same id. Answers 'done', or why not: 'webhook', 'disabled', 'delivery', 'pending'.
CREATE FUNCTION webhook_replay(p_merchant text, p_id text, p_delivery uuid, p_actor text, p_request_id text) RETURNS text LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_state text;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    SELECT state INTO found_state FROM webhooks WHERE merchant_id = p_merchant AND id = p_id;
    IF found_state IS DISTINCT FROM 'active' THEN
      RETURN coalesce(found_state, 'webhook');
    END IF;
    SELECT state INTO found_state FROM webhook_deliveries WHERE merchant_id = p_merchant AND id = p_delivery AND webhook_id = p_id FOR UPDATE;
    IF NOT FOUND OR found_state = 'pending' THEN
      RETURN CASE found_state WHEN 'pending' THEN 'pending' ELSE 'delivery' END;
    END IF;
    PERFORM audit_append(p_merchant, p_actor, 'webhook.replayed', 'webhook/' || p_id, 'allowed', p_request_id,
      jsonb_build_object('deliveryId', p_delivery)::text);
    UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_at = clock_timestamp(), delivered_at = NULL
    WHERE merchant_id = p_merchant AND id = p_delivery;
    RETURN 'done';
  END
  $$;

-- When the service's key changes: secrets that are still sealed with another one, and their new seal --------------------------------

-- The first 8 bytes of what is sealed name the key.
CREATE FUNCTION webhooks_sealed_otherwise(p_key_id bytea, p_after_merchant text, p_after_id text, p_limit integer)
  RETURNS TABLE (merchant_id text, id text, sealed bytea)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT w.merchant_id, w.id, w.sealed FROM webhooks w
    WHERE (w.merchant_id, w.id) > (p_after_merchant, p_after_id) AND substring(w.sealed FROM 1 FOR 8) <> p_key_id ORDER BY 1, 2 LIMIT p_limit
  $$;

CREATE FUNCTION webhook_reseal(p_merchant text, p_id text, p_before bytea, p_after bytea) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    UPDATE webhooks SET sealed = p_after WHERE merchant_id = p_merchant AND id = p_id AND sealed = p_before;
    RETURN FOUND;
  END
  $$;

-- Row security, owners, grants -------------------------------------------------------------------------------------------

DO $policies$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['webhooks', 'webhook_deliveries'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY tenant_rows ON %I USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()))', tenant_table);
    EXECUTE format('CREATE POLICY ops_reads ON %I FOR SELECT TO merchant_bedrock_ops USING (true)', tenant_table);
    EXECUTE format('CREATE POLICY ledger_works ON %I TO merchant_bedrock_ledger USING (true) WITH CHECK (true)', tenant_table);
    EXECUTE format('ALTER TABLE %I OWNER TO merchant_bedrock_owner', tenant_table);
  END LOOP;
END
$policies$;
GRANT SELECT ON webhook_deliveries TO merchant_bedrock_app;
GRANT SELECT (merchant_id, id, url, events, state, created_at, created_by) ON webhooks TO merchant_bedrock_app;
GRANT SELECT (merchant_id, id, state, next_at) ON webhook_deliveries TO merchant_bedrock_ops;
GRANT SELECT (merchant_id, id, sealed) ON webhooks TO merchant_bedrock_ops;
-- alert_goes_out runs as who raises the alert: the ledger. Of webhooks it needs who wants what, and sees neither address nor secret.
GRANT SELECT (merchant_id, id, state, events) ON webhooks TO merchant_bedrock_ledger;
GRANT SELECT (merchant_id, id, state), INSERT, DELETE ON webhook_deliveries TO merchant_bedrock_ledger;

DO $functions$
DECLARE
  signature text;
BEGIN
  ALTER FUNCTION alert_goes_out() OWNER TO merchant_bedrock_owner;
  REVOKE ALL ON FUNCTION alert_goes_out() FROM PUBLIC;
  FOREACH signature IN ARRAY ARRAY['webhook_deliveries_take(integer, double precision, integer, text[])', 'webhook_delivery_done(text, uuid, uuid, jsonb)',
    'webhook_create(text, jsonb, bytea, integer, text, text)', 'webhook_delete(text, text, text, text)', 'webhook_test(text, text, text, text)',
    'webhook_replay(text, text, uuid, text, text)', 'webhook_reseal(text, text, bytea, bytea)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  FOREACH signature IN ARRAY ARRAY['webhook_deliveries_due(integer, integer, text[])', 'webhooks_sealed_otherwise(bytea, text, text, integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ops', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
  END LOOP;
  GRANT EXECUTE ON FUNCTION webhook_deliveries_due(integer, integer, text[]) TO merchant_bedrock_owner;
  GRANT EXECUTE ON FUNCTION webhooks_sealed_otherwise(bytea, text, text, integer) TO merchant_bedrock_app;
END
$functions$;
