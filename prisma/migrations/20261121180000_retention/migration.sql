-- Retention: old months of the ledger leave, the books stay right. docs/decisions/0011 tells why it is so. It only adds.

-- What retired months count ------------------------------------------------------------------------------------------------

CREATE TABLE counter_openings (
  merchant_id text NOT NULL,
  month date NOT NULL,
  scope text NOT NULL,
  scope_id text NOT NULL,
  period text NOT NULL,
  starts_at timestamptz(3) NOT NULL,
  requests bigint NOT NULL,
  tokens_settled bigint NOT NULL,
  tokens_overrun bigint NOT NULL,
  nano_settled bigint NOT NULL,
  nano_overrun bigint NOT NULL,
  PRIMARY KEY (merchant_id, month, scope, scope_id, period, starts_at)
);
COMMENT ON TABLE counter_openings IS 'Opening balances: what the calls of a retired month add to each counter. Nothing of them is in flight, held or unknown.';

CREATE TABLE usage_openings (
  LIKE usage_days INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
  month date NOT NULL,
  PRIMARY KEY (merchant_id, month, end_user, day, model_id, credential_id, credential_source, api_key_id, region)
);
COMMENT ON TABLE usage_openings IS 'Opening balances: what the calls of a retired month add to each row of usage_days. month is the partition; near midnight a day may be another''s.';

-- Index on what never changes in a row, so that updates of counters stay in their page (HOT).
CREATE INDEX counters_minutes ON counters (starts_at) WHERE period = 'minute';
CREATE INDEX counters_days ON counters (starts_at) WHERE period = 'day';
CREATE INDEX limit_hits_by_day ON limit_hits (day);

-- Plain tables of the owner: the service has no way in.
CREATE SCHEMA IF NOT EXISTS archive;
GRANT USAGE, CREATE ON SCHEMA archive TO merchant_bedrock_owner;

-- Counting -----------------------------------------------------------------------------------------------------------------

-- Counters that began before this moment may be missing. The one rule for who removes them and for who proves that none is missing.
CREATE FUNCTION counter_cutoff(p_period text, p_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
  AS $$ SELECT CASE p_period WHEN 'minute' THEN p_at - interval '24 hours' WHEN 'day' THEN p_at - interval '9600 hours' ELSE '-infinity' END $$;

CREATE FUNCTION counter_expired(p_period text, p_starts_at timestamptz, p_at timestamptz) RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT p_starts_at < counter_cutoff(p_period, p_at) $$;

CREATE FUNCTION month_floor(p_month date) RETURNS uuid LANGUAGE sql IMMUTABLE
  AS $$ SELECT uuid_v7_floor(p_month::timestamp AT TIME ZONE 'UTC') $$;

CREATE FUNCTION month_after(p_month date) RETURNS date LANGUAGE sql IMMUTABLE
  AS $$ SELECT (p_month + interval '1 month')::date $$;

CREATE AGGREGATE histogram_sum (bigint[]) (
  SFUNC = add_histograms, STYPE = bigint[], INITCOND = '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}');

-- What the tenant's rows with p_from <= id < p_to add to each counter. What ledger_differences compares and what a retired month leaves.
CREATE FUNCTION counted_counters(p_from uuid, p_to uuid)
  RETURNS TABLE (scope text, scope_id text, period text, starts_at timestamptz, requests bigint, in_flight bigint, tokens_held numeric,
                 tokens_unknown numeric, tokens_settled numeric, tokens_overrun numeric, nano_held numeric, nano_unknown numeric,
                 nano_settled numeric, nano_overrun numeric)
  LANGUAGE sql STABLE
  AS $$
    SELECT k.scope, k.scope_id, k.period, k.starts_at, count(*), count(*) FILTER (WHERE c.state = 'held' AND k.period = 'total'),
      coalesce(sum(c.hold_tokens) FILTER (WHERE c.state = 'held'), 0),
      coalesce(sum(c.hold_tokens) FILTER (WHERE c.state = 'unknown'), 0),
      coalesce(sum(least(all_tokens(c), c.hold_tokens)) FILTER (WHERE c.state = 'settled'), 0),
      coalesce(sum(greatest(all_tokens(c) - c.hold_tokens, 0)) FILTER (WHERE c.state = 'settled'), 0),
      coalesce(sum(c.hold_nano) FILTER (WHERE c.state = 'held'), 0),
      coalesce(sum(c.hold_nano) FILTER (WHERE c.state = 'unknown'), 0),
      coalesce(sum(least(coalesce(c.cost_nano, c.hold_nano, 0), coalesce(c.hold_nano, 0))) FILTER (WHERE c.state = 'settled'), 0),
      coalesce(sum(greatest(coalesce(c.cost_nano - coalesce(c.hold_nano, 0), 0), 0)) FILTER (WHERE c.state = 'settled'), 0)
    FROM calls c CROSS JOIN LATERAL counters_of(c) AS k
    WHERE c.merchant_id = tenant() AND c.id >= p_from AND c.id < p_to GROUP BY 1, 2, 3, 4
  $$;

-- The same for usage_days, corrections included.
CREATE FUNCTION counted_usage(p_from uuid, p_to uuid) RETURNS SETOF usage_days LANGUAGE sql STABLE
  AS $$
    SELECT tenant(), u.end_user, u.day, u.model_id, u.credential_id, u.credential_source, u.api_key_id, u.region,
      sum(u.settled), sum(u.voided), sum(u.unknown), sum(u.estimated), sum(u.unpriced), sum(u.throttled), sum(u.failed),
      sum(u.input_tokens)::bigint, sum(u.output_tokens)::bigint, sum(u.cache_read_tokens)::bigint, sum(u.cache_write_5m_tokens)::bigint,
      sum(u.cache_write_1h_tokens)::bigint, sum(u.images)::bigint, sum(u.cost_nano)::bigint, sum(coalesce(d.delta, 0))::bigint,
      sum(u.latency_ms)::bigint, latency_histogram(array_agg(u.bucket))
    FROM calls c CROSS JOIN LATERAL usage_rows(c) AS u
    LEFT JOIN LATERAL (SELECT sum(r.delta_nano) AS delta FROM corrections r WHERE r.merchant_id = c.merchant_id AND r.call_id = c.id) AS d ON true
    WHERE c.merchant_id = tenant() AND c.id >= p_from AND c.id < p_to GROUP BY 2, 3, 4, 5, 6, 7, 8
  $$;

-- Recomputes every counter and every sum of the tenant from its rows and from the opening balances of retired months, in one snapshot.
-- Answers what differs: nothing, always. Whoever asks while months are retired locks calls first (src/ledger/usage-verify-store.ts).
CREATE OR REPLACE FUNCTION ledger_differences() RETURNS TABLE (what text, key text, kept jsonb, counted jsonb) LANGUAGE sql STABLE
  AS $$
    WITH counted AS (
      SELECT scope, scope_id, period, starts_at,
        jsonb_build_object('requests', sum(requests), 'inFlight', sum(in_flight), 'tokensHeld', sum(tokens_held), 'tokensUnknown', sum(tokens_unknown),
          'tokensSettled', sum(tokens_settled), 'tokensOverrun', sum(tokens_overrun), 'nanoHeld', sum(nano_held), 'nanoUnknown', sum(nano_unknown),
          'nanoSettled', sum(nano_settled), 'nanoOverrun', sum(nano_overrun)) AS numbers
      FROM (
        SELECT * FROM counted_counters('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        UNION ALL
        SELECT scope, scope_id, period, starts_at, requests, 0, 0, 0, tokens_settled, tokens_overrun, 0, 0, nano_settled, nano_overrun
        FROM counter_openings WHERE merchant_id = tenant()) AS parts
      GROUP BY 1, 2, 3, 4),
    kept AS (
      SELECT k.scope, k.scope_id, k.period, k.starts_at,
        jsonb_build_object('requests', requests, 'inFlight', in_flight, 'tokensHeld', tokens_held, 'tokensUnknown', tokens_unknown,
          'tokensSettled', tokens_settled, 'tokensOverrun', tokens_overrun, 'nanoHeld', nano_held, 'nanoUnknown', nano_unknown,
          'nanoSettled', nano_settled, 'nanoOverrun', nano_overrun) AS numbers
      FROM counters k WHERE k.merchant_id = tenant()),
    parts AS (
      SELECT * FROM counted_usage('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      UNION ALL
      SELECT merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, settled, voided, unknown, estimated,
        unpriced, throttled, failed, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, images,
        cost_nano, correction_nano, latency_ms, latencies
      FROM usage_openings WHERE merchant_id = tenant()),
    summed AS (
      SELECT concat_ws('/', end_user, day, model_id, credential_id, credential_source, api_key_id, region) AS key,
        jsonb_build_array(sum(settled), sum(voided), sum(unknown), sum(estimated), sum(unpriced), sum(throttled), sum(failed),
          sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens),
          sum(images), sum(cost_nano), sum(correction_nano), sum(latency_ms), histogram_sum(latencies)) AS numbers
      FROM parts GROUP BY 1),
    sums AS (
      SELECT concat_ws('/', end_user, day, model_id, credential_id, credential_source, api_key_id, region) AS key,
        jsonb_build_array(settled, voided, unknown, estimated, unpriced, throttled, failed, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, images, cost_nano, correction_nano, latency_ms, latencies) AS numbers
      FROM usage_days WHERE merchant_id = tenant())
    SELECT 'counter', concat_ws('/', scope, scope_id, period, starts_at), kept.numbers, counted.numbers
    FROM counted FULL JOIN kept USING (scope, scope_id, period, starts_at)
    WHERE kept.numbers IS DISTINCT FROM counted.numbers AND NOT (kept.numbers IS NULL AND counter_expired(period, starts_at, now()))
    UNION ALL
    SELECT 'usage', key, sums.numbers, summed.numbers FROM summed FULL JOIN sums USING (key)
    WHERE sums.numbers IS DISTINCT FROM summed.numbers AND coalesce(sums.numbers, '[]') <> jsonb_build_array(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, latency_histogram('{}'))
    UNION ALL
    -- The corrections of retired calls stay; their calls are not here to join.
    SELECT 'usage', concat_ws('/', 'corrections', o.month), to_jsonb(coalesce(r.delta, 0)), to_jsonb(o.delta)
    FROM (SELECT month, sum(correction_nano) AS delta FROM usage_openings WHERE merchant_id = tenant() AND end_user = '*' GROUP BY 1) AS o
    CROSS JOIN LATERAL (SELECT sum(n.delta_nano) AS delta FROM corrections n
      WHERE n.merchant_id = tenant() AND n.call_id >= month_floor(o.month) AND n.call_id < month_floor(month_after(o.month))) AS r
    WHERE coalesce(r.delta, 0) <> o.delta
    UNION ALL
    SELECT 'cost', c.id::text, to_jsonb(c.cost_nano), to_jsonb(s.cost)
    FROM calls c LEFT JOIN prices p ON p.id = c.price_id
    CROSS JOIN LATERAL (SELECT cost_of(p, c.input_tokens, c.output_tokens, c.cache_read_tokens, c.cache_write_5m_tokens, c.cache_write_1h_tokens, c.images)) AS s (cost)
    WHERE c.merchant_id = tenant() AND c.state = 'settled' AND c.cost_nano IS DISTINCT FROM s.cost
  $$;

-- A month leaves -------------------------------------------------------------------------------------------------------------

-- Who has rows in a month of the ledger, and how many of them are not resolved.
CREATE FUNCTION calls_of_month(p_month date) RETURNS TABLE (merchant_id text, calls bigint, held bigint, unknown bigint)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT c.merchant_id, count(*), count(*) FILTER (WHERE c.state = 'held'), count(*) FILTER (WHERE c.state = 'unknown')
    FROM calls c WHERE c.id >= month_floor(p_month) AND c.id < month_floor(month_after(p_month)) GROUP BY 1 ORDER BY 1
  $$;

-- Moves the partition of p_month to the schema archive and leaves what it counts as opening balances, in one transaction. Nothing is dropped.
-- Answers {calls, merchants}, or {held, unknown} when rows are not resolved and nothing was done, or NULL where there is no such partition.
--
-- A row that is settled or void never changes, and no id of a past month is made again; so all that takes long is done before anything is
-- locked, and calls wait only for the end of it. It needs a lock on calls that
-- no call may hold, and gives up (lock_not_available) rather than let calls queue behind it.
CREATE FUNCTION ledger_retire(p_month date, p_actor text, p_request_id text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    part CONSTANT text := 'calls_' || to_char(p_month, 'YYYY_MM');
    first CONSTANT uuid := month_floor(p_month);
    beyond CONSTANT uuid := month_floor(month_after(p_month));
    merchants text[];
    merchant text;
    total bigint;
    open_held bigint;
    open_unknown bigint;
    corrected bigint := 0;
    again bigint := 0;
    free_keys scope_name[] := '{}';
  BEGIN
    IF p_month <> date_trunc('month', p_month)::date OR month_after(p_month) > (now() AT TIME ZONE 'UTC')::date - interval '2 months' THEN
      RAISE EXCEPTION 'not a month that ended two months ago: %', p_month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ledger_retire'));
    IF NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = 'public.calls'::regclass AND inhrelid = to_regclass('public.' || part)) THEN
      RETURN NULL;
    END IF;
    SELECT coalesce(array_agg(n.merchant_id), '{}'), coalesce(sum(n.calls), 0), coalesce(sum(n.held), 0), coalesce(sum(n.unknown), 0)
      INTO merchants, total, open_held, open_unknown FROM calls_of_month(p_month) AS n;
    IF open_held + open_unknown > 0 THEN
      RETURN jsonb_build_object('held', open_held, 'unknown', open_unknown);
    END IF;

    FOREACH merchant IN ARRAY merchants LOOP
      PERFORM set_config('app.merchant_id', merchant, true);
      corrected := corrected + (SELECT count(*) FROM corrections r WHERE r.merchant_id = merchant AND r.call_id >= first AND r.call_id < beyond);
      -- Of counters that may be missing only those that are not.
      INSERT INTO counter_openings
      SELECT merchant, p_month, n.scope, n.scope_id, n.period, n.starts_at, n.requests, n.tokens_settled, n.tokens_overrun, n.nano_settled, n.nano_overrun
      FROM counted_counters(first, beyond) AS n
      WHERE NOT counter_expired(n.period, n.starts_at, now()) OR EXISTS (
        SELECT 1 FROM counters k WHERE k.merchant_id = merchant AND k.scope = n.scope AND k.scope_id = n.scope_id AND k.period = n.period AND k.starts_at = n.starts_at);
      INSERT INTO usage_openings SELECT u.*, p_month FROM counted_usage(first, beyond) AS u;
      -- The key of a void call is free; without the row nobody would know.
      free_keys := free_keys || ARRAY(
        SELECT ROW(merchant, k.call_id::text, encode(k.key_hash, 'hex'))::scope_name
        FROM idempotency_keys k JOIN calls c ON c.merchant_id = k.merchant_id AND c.id = k.call_id
        WHERE k.merchant_id = merchant AND k.call_id >= first AND k.call_id < beyond AND c.id >= first AND c.id < beyond AND c.state = 'void');
    END LOOP;

    PERFORM set_config('lock_timeout', '3s', true);
    -- The heads first, in order, the operators' among them: from here on no correction is written and no key used.
    PERFORM set_config('app.merchant_id', '~system', true);
    INSERT INTO audit_heads VALUES ('~system', 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    FOR merchant IN SELECT n.id FROM unnest(merchants || '~system'::text) AS n (id) ORDER BY n.id LOOP
      PERFORM set_config('app.merchant_id', merchant, true);
      PERFORM 1 FROM audit_heads h WHERE h.merchant_id = merchant FOR UPDATE;
      again := again + (SELECT count(*) FROM corrections r WHERE r.merchant_id = merchant AND r.call_id >= first AND r.call_id < beyond);
      DELETE FROM idempotency_keys k USING unnest(free_keys) AS f
      WHERE f.merchant_id = merchant AND k.merchant_id = merchant AND k.key_hash = decode(f.scope_id, 'hex') AND k.call_id = f.scope::uuid;
      DELETE FROM counters k
      WHERE k.merchant_id = merchant AND k.starts_at < (month_after(p_month)::timestamp AT TIME ZONE 'UTC') + interval '10 minutes'
        AND counter_expired(k.period, k.starts_at, now() - interval '1 minute')
        AND k.in_flight = 0 AND k.tokens_held = 0 AND k.tokens_unknown = 0 AND k.nano_held = 0 AND k.nano_unknown = 0;
      DELETE FROM counter_openings o
      WHERE o.merchant_id = merchant AND counter_expired(o.period, o.starts_at, now() - interval '1 minute') AND NOT EXISTS (
        SELECT 1 FROM counters k WHERE k.merchant_id = merchant AND k.scope = o.scope AND k.scope_id = o.scope_id AND k.period = o.period AND k.starts_at = o.starts_at);
    END LOOP;
    IF again <> corrected THEN
      RAISE EXCEPTION 'calls of % were rated again meanwhile', p_month USING ERRCODE = 'serialization_failure';
    END IF;

    EXECUTE format('ALTER TABLE public.calls DETACH PARTITION public.%I', part);
    EXECUTE format('DROP POLICY tenant_rows ON public.%I', part);
    EXECUTE format('ALTER TABLE public.%I NO FORCE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE public.%I DISABLE ROW LEVEL SECURITY', part);
    EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC, merchant_bedrock_app, merchant_bedrock_ops, merchant_bedrock_ledger', part);
    EXECUTE format('ALTER TABLE public.%I SET SCHEMA archive', part);
    PERFORM set_config('app.merchant_id', '~system', true);
    PERFORM audit_append_all(ARRAY[ROW('~system', p_actor, 'calls.retired', 'calls/' || to_char(p_month, 'YYYY-MM'), 'allowed', p_request_id,
      jsonb_build_object('calls', total, 'merchants', cardinality(merchants), 'table', 'archive.' || part)::text)::audit_entry]);
    PERFORM set_config('app.merchant_id', '', true);
    RETURN jsonb_build_object('calls', total, 'merchants', cardinality(merchants));
  END
  $$;

-- Counters that nobody needs ---------------------------------------------------------------------------------------------------

CREATE TYPE counter_key AS (scope text, scope_id text, period text, starts_at timestamptz);

-- Expired counters that hold nothing, at most p_limit, by merchant. A minute of margin: who proves may have read the time before.
CREATE FUNCTION counters_expired(p_limit integer) RETURNS TABLE (merchant_id text, keys counter_key[])
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT e.merchant_id, array_agg(ROW(e.scope, e.scope_id, e.period, e.starts_at)::counter_key)
    FROM (
      (SELECT k.* FROM counters k
       WHERE k.period = 'minute' AND k.starts_at < counter_cutoff('minute', now() - interval '1 minute')
         AND k.in_flight = 0 AND k.tokens_held = 0 AND k.tokens_unknown = 0 AND k.nano_held = 0 AND k.nano_unknown = 0
       ORDER BY k.starts_at LIMIT p_limit)
      UNION ALL
      (SELECT k.* FROM counters k
       WHERE k.period = 'day' AND k.starts_at < counter_cutoff('day', now() - interval '1 minute')
         AND k.in_flight = 0 AND k.tokens_held = 0 AND k.tokens_unknown = 0 AND k.nano_held = 0 AND k.nano_unknown = 0
       ORDER BY k.starts_at LIMIT p_limit)
      LIMIT p_limit) AS e
    GROUP BY 1 ORDER BY 1
  $$;

CREATE FUNCTION limit_hits_expired(p_limit integer) RETURNS TABLE (merchant_id text, days date[])
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT e.merchant_id, array_agg(DISTINCT e.day)
    FROM (SELECT h.merchant_id, h.day FROM limit_hits h WHERE h.day < (now() AT TIME ZONE 'UTC')::date - 400 ORDER BY h.day LIMIT p_limit) AS e
    GROUP BY 1 ORDER BY 1
  $$;

-- Removes expired counters and counts of limit hits, at most about p_limit of each. Merchants that another transaction works on are left for the
-- next round, so any number of replicas may sweep. Answers how many went.
CREATE FUNCTION counters_sweep(p_limit integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    one record;
    removed integer := 0;
    gone integer;
  BEGIN
    FOR one IN
      SELECT coalesce(c.merchant_id, h.merchant_id) AS merchant_id, coalesce(c.keys, '{}') AS keys, coalesce(h.days, '{}') AS days
      FROM counters_expired(p_limit) AS c FULL JOIN limit_hits_expired(p_limit) AS h ON h.merchant_id = c.merchant_id ORDER BY 1
    LOOP
      PERFORM set_config('app.merchant_id', one.merchant_id, true);
      PERFORM 1 FROM audit_heads WHERE merchant_id = one.merchant_id FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      -- Asked again: a settlement may have come between.
      WITH went AS (
        DELETE FROM counters k USING unnest(one.keys) AS e
        WHERE k.merchant_id = one.merchant_id AND k.scope = e.scope AND k.scope_id = e.scope_id AND k.period = e.period AND k.starts_at = e.starts_at
          AND k.in_flight = 0 AND k.tokens_held = 0 AND k.tokens_unknown = 0 AND k.nano_held = 0 AND k.nano_unknown = 0
        RETURNING k.scope, k.scope_id, k.period, k.starts_at),
      opened AS (
        DELETE FROM counter_openings o USING went AS e
        WHERE o.merchant_id = one.merchant_id AND o.scope = e.scope AND o.scope_id = e.scope_id AND o.period = e.period AND o.starts_at = e.starts_at)
      SELECT count(*) INTO gone FROM went;
      removed := removed + gone;
      DELETE FROM limit_hits h WHERE h.merchant_id = one.merchant_id AND h.day = ANY (one.days);
      GET DIAGNOSTICS gone = ROW_COUNT;
      removed := removed + gone;
    END LOOP;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN removed;
  END
  $$;

-- Row security, owners, grants -------------------------------------------------------------------------------------------------

DO $policies$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['counter_openings', 'usage_openings'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY tenant_rows ON %I USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()))', tenant_table);
    EXECUTE format('ALTER TABLE %I OWNER TO merchant_bedrock_owner', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_app', tenant_table);
  END LOOP;
  FOREACH tenant_table IN ARRAY ARRAY['counters', 'limit_hits'] LOOP
    EXECUTE format('CREATE POLICY ops_reads ON %I FOR SELECT TO merchant_bedrock_ops USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_ops', tenant_table);
  END LOOP;
END
$policies$;

ALTER FUNCTION calls_of_month(date) OWNER TO merchant_bedrock_ops;
ALTER FUNCTION counters_expired(integer) OWNER TO merchant_bedrock_ops;
ALTER FUNCTION limit_hits_expired(integer) OWNER TO merchant_bedrock_ops;
ALTER FUNCTION ledger_retire(date, text, text) OWNER TO merchant_bedrock_owner;
ALTER FUNCTION counters_sweep(integer) OWNER TO merchant_bedrock_owner;
REVOKE ALL ON FUNCTION calls_of_month(date), counters_expired(integer), limit_hits_expired(integer), ledger_retire(date, text, text), counters_sweep(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION calls_of_month(date), counters_expired(integer), limit_hits_expired(integer) TO merchant_bedrock_owner;
-- Retiring is an administrator's (npm run retention).
GRANT EXECUTE ON FUNCTION counters_sweep(integer) TO merchant_bedrock_app;
