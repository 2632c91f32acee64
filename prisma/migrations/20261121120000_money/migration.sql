-- Money: prices, plans, limits that are invariants of the database, and a ledger that works in batches. prisma/README.md tells the whole.

-- Functions on the hot path have no SET clause, so that the planner can inline them; every name in them is qualified.
CREATE OR REPLACE FUNCTION audit_field(value text) RETURNS bytea LANGUAGE sql STABLE
  AS $$ SELECT pg_catalog.int4send(pg_catalog.octet_length(value)) OPERATOR(pg_catalog.||) pg_catalog.convert_to(value, 'UTF8') $$;

CREATE OR REPLACE FUNCTION tenant() RETURNS text LANGUAGE sql STABLE
  AS $$ SELECT nullif(pg_catalog.current_setting('app.merchant_id', true), '') $$;

CREATE OR REPLACE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE
  AS $$
    SELECT pg_catalog.encode(
      pg_catalog.set_bit(pg_catalog.set_bit(
        pg_catalog.substring(pg_catalog.int8send(pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000)::bigint), 3)
        OPERATOR(pg_catalog.||) pg_catalog.substring(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), 7),
        52, 1), 53, 1), 'hex')::uuid
  $$;

CREATE TYPE audit_entry AS (chain text, actor text, action text, resource text, outcome text, request_id text, body text);

-- Appends to the chains that the entries name, in their order. The heads stay locked until commit.
CREATE FUNCTION audit_append_all(p_entries audit_entry[]) RETURNS void LANGUAGE plpgsql
  AS $$
  DECLARE
    e record;
    head audit_heads%ROWTYPE;
    at_us bigint;
    events audit_events[] := '{}';
  BEGIN
    PERFORM 1 FROM (SELECT 1 FROM audit_heads h WHERE h.merchant_id IN (SELECT n.chain FROM unnest(p_entries) AS n) ORDER BY h.merchant_id FOR UPDATE) AS locked;
    FOR e IN
      SELECT n.*, h.seq, h.hash FROM unnest(p_entries) WITH ORDINALITY AS n JOIN audit_heads h ON h.merchant_id = n.chain ORDER BY n.chain, n.ordinality
    LOOP
      IF head.merchant_id IS DISTINCT FROM e.chain THEN
        head.merchant_id := e.chain;
        head.seq := e.seq;
        head.hash := e.hash;
      END IF;
      head.seq := head.seq + 1;
      at_us := floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
      events := events || ROW(e.chain, head.seq, at_us, e.actor, e.action, e.resource, e.outcome, e.request_id, e.body, head.hash, sha256(
        'mbk-audit-v1'::bytea || audit_field(e.chain) || audit_field(head.seq::text) || audit_field(at_us::text) || audit_field(e.actor)
        || audit_field(e.action) || audit_field(e.resource) || audit_field(e.outcome) || audit_field(e.request_id) || audit_field(e.body) || head.hash))::audit_events;
      head.hash := events[cardinality(events)].hash;
    END LOOP;
    INSERT INTO audit_events SELECT n.* FROM unnest(events) AS n;
    UPDATE audit_heads AS h SET seq = n.seq, hash = n.hash
    FROM (SELECT DISTINCT ON (v.merchant_id) v.merchant_id, v.seq, v.hash FROM unnest(events) AS v ORDER BY v.merchant_id, v.seq DESC) AS n
    WHERE h.merchant_id = n.merchant_id;
  END
  $$;

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
    SELECT h.seq INTO appended FROM audit_heads h WHERE h.merchant_id = p_merchant;
    PERFORM set_config('app.merchant_id', coalesce(previous_tenant, ''), true);
    RETURN appended;
  END
  $$;

-- Prices ---------------------------------------------------------------------------------------------------------

CREATE TABLE prices (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model_id text NOT NULL,
  region text NOT NULL,
  profile text NOT NULL CHECK (profile IN ('in-region', 'geographic', 'global', 'provisioned')),
  tier text NOT NULL CHECK (tier IN ('standard', 'priority', 'flex', 'latency-optimized')),
  valid_from timestamptz(3) NOT NULL,
  revision integer NOT NULL DEFAULT 1 CHECK (revision > 0),
  withdrawn boolean NOT NULL DEFAULT false,
  input bigint CHECK (input >= 0),
  output bigint CHECK (output >= 0),
  cache_read bigint CHECK (cache_read >= 0),
  cache_write_5m bigint CHECK (cache_write_5m >= 0),
  cache_write_1h bigint CHECK (cache_write_1h >= 0),
  image bigint CHECK (image >= 0),
  embedding bigint CHECK (embedding >= 0),
  request bigint CHECK (request >= 0),
  context_tokens integer CHECK (context_tokens > 0),
  max_output_tokens integer CHECK (max_output_tokens > 0),
  source text NOT NULL,
  source_date date NOT NULL,
  imported_by text NOT NULL,
  imported_at timestamptz(3) NOT NULL DEFAULT now(),
  UNIQUE (model_id, region, profile, tier, valid_from, revision)
);
COMMENT ON TABLE prices IS 'The price book: integer nano-USD per million units of each kind. Rows are never edited; a correction is a higher revision of the same key. Region * holds where no row names the region.';

-- Plans and limits -------------------------------------------------------------------------------------------------

CREATE TABLE plans (
  id text NOT NULL CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  version integer NOT NULL CHECK (version > 0),
  spec jsonb NOT NULL CHECK (jsonb_typeof(spec) = 'object'),
  created_by text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (id, version)
);
COMMENT ON TABLE plans IS 'Versioned sets of limits (src/domain/limits.ts says what a spec holds). A version is never edited.';
INSERT INTO plans (id, version, spec, created_by) VALUES ('open', 1, '{}', 'migration');

ALTER TABLE merchants
  ADD COLUMN plan_id text NOT NULL DEFAULT 'open',
  ADD COLUMN plan_version integer NOT NULL DEFAULT 1,
  ADD COLUMN status_reason text,
  ADD COLUMN revision bigint NOT NULL DEFAULT 1,
  ADD FOREIGN KEY (plan_id, plan_version) REFERENCES plans (id, version);
COMMENT ON COLUMN merchants.revision IS 'Grows with every change of the row. A replica sends the one it knows with each call, and learns of changes that way.';

CREATE FUNCTION merchant_revised() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog
  AS $$ BEGIN NEW.revision := OLD.revision + 1; RETURN NEW; END $$;
CREATE TRIGGER merchant_is_revised BEFORE UPDATE ON merchants FOR EACH ROW EXECUTE FUNCTION merchant_revised();

CREATE TABLE limits (
  merchant_id text NOT NULL REFERENCES merchants (id),
  scope text NOT NULL CHECK (scope IN ('merchant', 'api-key', 'end-user')),
  scope_id text NOT NULL CHECK (length(scope_id) <= 128 AND (scope <> 'merchant' OR scope_id = '')),
  spec jsonb NOT NULL CHECK (jsonb_typeof(spec) = 'object'),
  ends_at timestamptz(3),
  set_by text NOT NULL,
  set_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (merchant_id, scope, scope_id)
);
COMMENT ON TABLE limits IS 'Scope merchant: an override of the plan, member by member, until ends_at. The other scopes: limits of one API key or end user; scope_id empty means each one that has no row of its own.';

CREATE TABLE counters (
  merchant_id text NOT NULL,
  scope text NOT NULL,
  scope_id text NOT NULL,
  period text NOT NULL CHECK (period IN ('minute', 'day', 'month', 'total')),
  starts_at timestamptz(3) NOT NULL,
  in_flight bigint NOT NULL DEFAULT 0 CHECK (in_flight >= 0),
  in_flight_max bigint,
  requests bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
  requests_max bigint,
  tokens_held bigint NOT NULL DEFAULT 0 CHECK (tokens_held >= 0),
  tokens_unknown bigint NOT NULL DEFAULT 0 CHECK (tokens_unknown >= 0),
  tokens_settled bigint NOT NULL DEFAULT 0 CHECK (tokens_settled >= 0),
  tokens_overrun bigint NOT NULL DEFAULT 0 CHECK (tokens_overrun >= 0),
  tokens_max bigint,
  nano_held bigint NOT NULL DEFAULT 0 CHECK (nano_held >= 0),
  nano_unknown bigint NOT NULL DEFAULT 0 CHECK (nano_unknown >= 0),
  nano_settled bigint NOT NULL DEFAULT 0 CHECK (nano_settled >= 0),
  nano_overrun bigint NOT NULL DEFAULT 0 CHECK (nano_overrun >= 0),
  nano_max bigint,
  PRIMARY KEY (merchant_id, scope, scope_id, period, starts_at),
  CONSTRAINT in_flight_within_limit CHECK (in_flight <= in_flight_max),
  CONSTRAINT requests_within_limit CHECK (requests <= requests_max),
  CONSTRAINT tokens_within_limit CHECK (tokens_held + tokens_unknown + tokens_settled <= tokens_max),
  CONSTRAINT money_within_limit CHECK (nano_held + nano_unknown + nano_settled <= nano_max)
) WITH (fillfactor = 50);
COMMENT ON TABLE counters IS 'What was used in each period, and the hard limit it may not pass (NULL: none). A limit that was lowered below what is used already stands at what is used. Money in nano-USD.';

CREATE TABLE limit_hits (
  merchant_id text NOT NULL,
  day date NOT NULL,
  scope text NOT NULL,
  limit_name text NOT NULL,
  mode text NOT NULL CHECK (mode IN ('hard', 'shadow')),
  hits bigint NOT NULL CHECK (hits > 0),
  PRIMARY KEY (merchant_id, day, scope, limit_name, mode)
);
COMMENT ON TABLE limit_hits IS 'How often a limit refused a call, or would have (shadow).';

CREATE TABLE alerts (
  merchant_id text NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('threshold', 'forecast', 'overrun')),
  scope text NOT NULL,
  scope_id text NOT NULL,
  limit_name text NOT NULL,
  starts_at timestamptz(3) NOT NULL,
  threshold integer NOT NULL,
  used bigint NOT NULL,
  maximum bigint,
  call_id uuid,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (merchant_id, id),
  UNIQUE NULLS NOT DISTINCT (merchant_id, kind, scope, scope_id, limit_name, starts_at, threshold, call_id)
);
COMMENT ON TABLE alerts IS 'Each threshold of each limit once a period (percent; for a forecast the percent foreseen at the end of the period), and each overrun once.';

-- The ledger's rows ----------------------------------------------------------------------------------------------

CREATE TABLE processes (
  id uuid PRIMARY KEY,
  started_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  lease_until timestamptz(3) NOT NULL
);
COMMENT ON TABLE processes IS 'Running service processes. When a lease has ended, the calls its process held are in doubt.';

ALTER TABLE calls
  ADD COLUMN process_id uuid,
  ADD COLUMN base_model_id text,
  ADD COLUMN tier text,
  ADD COLUMN price_id bigint,
  ADD COLUMN end_user text,
  ADD COLUMN charged integer NOT NULL DEFAULT 0,
  ADD COLUMN max_tokens bigint,
  ADD COLUMN hold_tokens bigint NOT NULL DEFAULT 0 CHECK (hold_tokens >= 0),
  ADD COLUMN hold_nano bigint CHECK (hold_nano >= 0),
  ADD COLUMN images integer NOT NULL DEFAULT 0 CHECK (images >= 0),
  ADD COLUMN cost_nano bigint CHECK (cost_nano >= 0);
COMMENT ON COLUMN calls.charged IS 'Which counters this call was charged to: bit 4 * scope (merchant, api-key, end-user) + period (minute, day, month, total).';
COMMENT ON COLUMN calls.cost_nano IS 'Nano-USD by the price at admission; NULL while not settled, and where the model or a kind of its tokens has no price (unpriced).';
DROP INDEX calls_held;
CREATE INDEX calls_held ON calls (process_id, deadline) WHERE state = 'held';
CREATE INDEX calls_unknown ON calls (merchant_id, resolved_at) WHERE state = 'unknown';

CREATE TABLE idempotency_keys (
  merchant_id text NOT NULL,
  key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),
  body_hash bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  call_id uuid NOT NULL,
  created_at timestamptz(3) NOT NULL,
  answer bytea,
  answer_until timestamptz(3),
  PRIMARY KEY (merchant_id, key_hash)
);
COMMENT ON TABLE idempotency_keys IS 'Unique for the life of the ledger. The answer is sealed under a key that only the caller''s Idempotency-Key completes, and is removed after a day.';

-- Sums by day ------------------------------------------------------------------------------------------------------

DROP FUNCTION ledger_resolve(text, uuid, jsonb);
DROP FUNCTION usage_add(calls, text);
DROP FUNCTION ledger_open(text, jsonb);
DROP FUNCTION overdue_calls(integer);
DROP FUNCTION ops_usage(date, date, text, integer);
DROP TABLE usage_days;

CREATE TABLE usage_days (
  merchant_id text NOT NULL,
  end_user text NOT NULL,
  day date NOT NULL,
  model_id text NOT NULL,
  credential_id text NOT NULL,
  credential_source text NOT NULL,
  api_key_id text NOT NULL,
  region text NOT NULL,
  settled bigint NOT NULL DEFAULT 0 CHECK (settled >= 0),
  voided bigint NOT NULL DEFAULT 0 CHECK (voided >= 0),
  unknown bigint NOT NULL DEFAULT 0 CHECK (unknown >= 0),
  estimated bigint NOT NULL DEFAULT 0 CHECK (estimated >= 0),
  unpriced bigint NOT NULL DEFAULT 0 CHECK (unpriced >= 0),
  throttled bigint NOT NULL DEFAULT 0 CHECK (throttled >= 0),
  failed bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
  input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
  output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
  cache_read_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
  cache_write_5m_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_5m_tokens >= 0),
  cache_write_1h_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_1h_tokens >= 0),
  images bigint NOT NULL DEFAULT 0 CHECK (images >= 0),
  cost_nano bigint NOT NULL DEFAULT 0 CHECK (cost_nano >= 0),
  correction_nano bigint NOT NULL DEFAULT 0,
  latency_ms bigint NOT NULL DEFAULT 0 CHECK (latency_ms >= 0),
  latencies bigint[] NOT NULL,
  PRIMARY KEY (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region)
);
COMMENT ON TABLE usage_days IS 'Sums of resolved calls by UTC day of their start, kept in the transaction that resolves each call. end_user * holds everyone; a call of an end user is counted in that user''s row as well. Empty text stands for "none" in the key.';
COMMENT ON COLUMN usage_days.latencies IS 'Settled calls by latency: bucket i (from 1) holds those below 2^(i/2) ms, the last one all that were slower.';

-- Which bucket a latency is in: 1 to 40. 2^(i/2) is never within 1e-8 of a whole number and a half, so floats decide as exact numbers do.
CREATE FUNCTION latency_bucket(ms integer) RETURNS integer LANGUAGE sql IMMUTABLE
  AS $$ SELECT least(40, greatest(1, ceil(2 * ln(greatest(ms, 1) + 0.5::float8) / ln(2::float8))::integer)) $$;

-- What a resolved call adds to its day (and to its end user's): one row for each. The definition of usage_days.
CREATE FUNCTION usage_rows(c calls)
  RETURNS TABLE (end_user text, day date, model_id text, credential_id text, credential_source text, api_key_id text, region text,
                 settled integer, voided integer, unknown integer, estimated integer, unpriced integer, throttled integer, failed integer,
                 input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_5m_tokens bigint, cache_write_1h_tokens bigint,
                 images bigint, cost_nano bigint, latency_ms bigint, bucket integer)
  LANGUAGE sql STABLE
  AS $$
    SELECT u.end_user, (c.created_at AT TIME ZONE 'UTC')::date, c.model_id, coalesce(c.credential_id, ''), c.credential_source,
      coalesce(c.api_key_id, ''), c.region, (c.state = 'settled')::integer, (c.state = 'void')::integer, (c.state = 'unknown')::integer,
      (c.state = 'settled' AND c.provenance IS NOT DISTINCT FROM 'estimated')::integer, (c.state = 'settled' AND c.cost_nano IS NULL)::integer,
      (c.aws_status IS NOT DISTINCT FROM 429)::integer, (c.state <> 'settled' AND c.aws_status IS DISTINCT FROM 429)::integer,
      c.input_tokens, c.output_tokens, c.cache_read_tokens, c.cache_write_5m_tokens, c.cache_write_1h_tokens, c.images::bigint,
      coalesce(c.cost_nano, 0), CASE WHEN c.state = 'settled' THEN coalesce(c.latency_ms, 0) ELSE 0 END::bigint,
      CASE WHEN c.state = 'settled' AND c.latency_ms IS NOT NULL THEN latency_bucket(c.latency_ms) END
    FROM (VALUES ('*'), (c.end_user)) AS u (end_user)
    WHERE u.end_user IS NOT NULL AND c.state <> 'held'
  $$;

-- Counts of p_buckets by bucket, as latencies holds them.
CREATE FUNCTION latency_histogram(p_buckets integer[]) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE
  AS $$
  DECLARE
    counts bigint[] := array_fill(0::bigint, ARRAY[40]);
    b integer;
  BEGIN
    FOREACH b IN ARRAY p_buckets LOOP
      IF b IS NOT NULL THEN
        counts[b] := counts[b] + 1;
      END IF;
    END LOOP;
    RETURN counts;
  END
  $$;

CREATE FUNCTION add_histograms(a bigint[], b bigint[]) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE
  AS $$
  BEGIN
    FOR i IN 1..40 LOOP
      IF b[i] > 0 THEN
        a[i] := a[i] + b[i];
      END IF;
    END LOOP;
    RETURN a;
  END
  $$;

-- What a call costs by a price: nano-USD, summed first and rounded up once; NULL where a kind that was used has no price.
-- div is division of whole numbers: that of numerics keeps 16 digits, so that from $1,000 on a part of a nano-dollar could be lost unseen.
-- The same formula stands in src/ledger/price-book.ts.
CREATE FUNCTION cost_of(p prices, input bigint, output bigint, cache_read bigint, cache_write_5m bigint, cache_write_1h bigint, images integer)
  RETURNS bigint LANGUAGE sql IMMUTABLE
  AS $$
    SELECT div(
        CASE WHEN input = 0 THEN 0 ELSE input::numeric * coalesce(p.input, p.embedding) END
      + CASE WHEN output = 0 THEN 0 ELSE output::numeric * p.output END
      + CASE WHEN cache_read = 0 THEN 0 ELSE cache_read::numeric * p.cache_read END
      + CASE WHEN cache_write_5m = 0 THEN 0 ELSE cache_write_5m::numeric * p.cache_write_5m END
      + CASE WHEN cache_write_1h = 0 THEN 0 ELSE cache_write_1h::numeric * p.cache_write_1h END
      + CASE WHEN images = 0 THEN 0 ELSE images::numeric * p.image END
      + coalesce(p.request, 0) + 999999, 1000000)::bigint
    WHERE p.id IS NOT NULL
  $$;

-- Limits in force ---------------------------------------------------------------------------------------------------

CREATE TYPE limit_row AS (
  merchant_id text, scope text, scope_id text, period text, starts_at timestamptz, bit integer,
  requests_max bigint, requests_mode text, tokens_max bigint, tokens_mode text, nano_max bigint, nano_mode text,
  in_flight_max bigint, in_flight_mode text
);

-- The counters that calls of a scope are charged to, with their limits. A merchant's day, month and total are always kept, so that a new
-- limit is right from its first call; everything else only where a limit names it.
CREATE FUNCTION limit_rows(p_merchant text, p_scope text, p_scope_id text, p_spec jsonb, p_at timestamptz) RETURNS SETOF limit_row LANGUAGE sql STABLE
  AS $$
    SELECT p_merchant, p_scope, p_scope_id, k.period,
      CASE k.period WHEN 'total' THEN timestamptz 'epoch' ELSE date_trunc(k.period, p_at, 'UTC') END,
      1 << (4 * CASE p_scope WHEN 'merchant' THEN 0 WHEN 'api-key' THEN 1 ELSE 2 END + k.code),
      (p_spec->k.requests->>'max')::bigint, p_spec->k.requests->>'mode', (p_spec->k.tokens->>'max')::bigint, p_spec->k.tokens->>'mode',
      (p_spec->k.nano->>'max')::bigint, p_spec->k.nano->>'mode', (p_spec->k.in_flight->>'max')::bigint, p_spec->k.in_flight->>'mode'
    FROM (VALUES
      ('minute', 0, 'requestsPerMinute', 'tokensPerMinute', NULL, NULL),
      ('day', 1, 'requestsPerDay', 'tokensPerDay', 'nanoUsdPerDay', NULL),
      ('month', 2, 'requestsPerMonth', 'tokensPerMonth', 'nanoUsdPerMonth', NULL),
      ('total', 3, NULL, NULL, 'nanoUsdCredit', 'callsInFlight')) AS k (period, code, requests, tokens, nano, in_flight)
    WHERE (p_scope = 'merchant' AND k.period <> 'minute') OR p_spec ?| ARRAY[k.requests, k.tokens, k.nano, k.in_flight]
  $$;

-- A merchant as admission needs it: its plan with the override in force, and whether any of its API keys or end users has limits.
CREATE TYPE merchant_state AS (
  merchant_id text, status text, revision bigint, direct_allowed boolean, service_defaults_allowed boolean, spec jsonb, named_limits boolean
);

CREATE FUNCTION merchants_in_force(p_merchants text[], p_at timestamptz) RETURNS SETOF merchant_state LANGUAGE sql STABLE
  AS $$
    SELECT m.id, m.status, m.revision, m.direct_allowed, m.service_defaults_allowed, p.spec || coalesce(l.spec, '{}'),
      EXISTS (SELECT 1 FROM limits n WHERE n.merchant_id = m.id AND n.scope IN ('api-key', 'end-user'))
    FROM merchants m JOIN plans p ON p.id = m.plan_id AND p.version = m.plan_version
    LEFT JOIN limits l ON l.merchant_id = m.id AND l.scope = 'merchant' AND l.scope_id = '' AND (l.ends_at IS NULL OR l.ends_at > p_at)
    WHERE m.id = ANY (p_merchants)
  $$;

CREATE FUNCTION model_allowed(p_patterns jsonb, p_model text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
  AS $$
  BEGIN
    RETURN EXISTS (SELECT 1 FROM jsonb_array_elements_text(p_patterns) AS m (pattern)
                   WHERE p_model LIKE replace(replace(m.pattern, '_', '\_'), '*', '%'));
  END
  $$;

-- An API key or end user of a merchant.
CREATE TYPE scope_name AS (merchant_id text, scope text, scope_id text);

-- The limits that count for some merchants and for the API keys and end users that are named: their own, or those of each.
CREATE FUNCTION limit_rows_of(p_states merchant_state[], p_names scope_name[], p_at timestamptz) RETURNS limit_row[] LANGUAGE plpgsql STABLE
  AS $$
  DECLARE
    rows limit_row[] := ARRAY(SELECT r FROM unnest(p_states) AS s CROSS JOIN LATERAL limit_rows(s.merchant_id, 'merchant', '', s.spec, p_at) AS r);
  BEGIN
    IF EXISTS (SELECT 1 FROM unnest(p_states) AS s WHERE s.named_limits) THEN
      rows := rows || ARRAY(
        SELECT r FROM (SELECT DISTINCT * FROM unnest(p_names) AS n WHERE n.scope_id IS NOT NULL) AS n
        CROSS JOIN LATERAL (
          SELECT l.spec FROM limits l
          WHERE l.merchant_id = n.merchant_id AND l.scope = n.scope AND l.scope_id IN (n.scope_id, '') AND (l.ends_at IS NULL OR l.ends_at > p_at)
          ORDER BY l.scope_id DESC LIMIT 1) AS own
        CROSS JOIN LATERAL limit_rows(n.merchant_id, n.scope, n.scope_id, own.spec, p_at) AS r);
    END IF;
    RETURN rows;
  END
  $$;

-- What some calls together would add to a counter.
CREATE TYPE charge AS (row limit_row, calls bigint, tokens bigint, nano bigint);

-- Each limit that a charge meets: what it allows, what is used (holds included), what is spent (without them), what is wanted.
CREATE FUNCTION limit_use(p_charges charge[])
  RETURNS TABLE (merchant_id text, name text, kind text, scope text, scope_id text, mode text, maximum bigint, used bigint, spent bigint,
                 wanted bigint, starts_at timestamptz, resets_at timestamptz)
  LANGUAGE sql STABLE
  AS $$
    SELECT (h.row).merchant_id, v.name, v.kind, (h.row).scope, (h.row).scope_id, v.mode, v.maximum, coalesce(v.used, 0), coalesce(v.spent, 0), v.wanted,
      (h.row).starts_at,
      CASE (h.row).period WHEN 'minute' THEN (h.row).starts_at + interval '1 minute'
        WHEN 'day' THEN (h.row).starts_at + interval '1 day' WHEN 'month' THEN ((h.row).starts_at AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' END
    FROM unnest(p_charges) AS h
    LEFT JOIN counters c ON c.merchant_id = (h.row).merchant_id AND c.scope = (h.row).scope AND c.scope_id = (h.row).scope_id
      AND c.period = (h.row).period AND c.starts_at = (h.row).starts_at
    CROSS JOIN LATERAL (VALUES
      (1, 'callsInFlight', 'in-flight', (h.row).in_flight_mode, (h.row).in_flight_max, c.in_flight, 0, h.calls),
      (2, 'requestsPer' || initcap((h.row).period), 'requests', (h.row).requests_mode, (h.row).requests_max, c.requests, c.requests, h.calls),
      (3, 'tokensPer' || initcap((h.row).period), 'tokens', (h.row).tokens_mode, (h.row).tokens_max, c.tokens_held + c.tokens_unknown + c.tokens_settled,
        c.tokens_unknown + c.tokens_settled + c.tokens_overrun, h.tokens),
      (4, CASE (h.row).period WHEN 'total' THEN 'nanoUsdCredit' ELSE 'nanoUsdPer' || initcap((h.row).period) END, 'money',
        (h.row).nano_mode, (h.row).nano_max, c.nano_held + c.nano_unknown + c.nano_settled, c.nano_unknown + c.nano_settled + c.nano_overrun, h.nano)
    ) AS v (rank, name, kind, mode, maximum, used, spent, wanted)
    WHERE v.maximum IS NOT NULL
    ORDER BY v.rank, (h.row).scope DESC, (h.row).bit
  $$;

-- Admission ------------------------------------------------------------------------------------------------------------

CREATE TYPE call_intent AS (
  merchant_id text, merchant_revision bigint, operation text, model_id text, base_model_id text, region text, account_id text, source text,
  credential_id text, credential_version integer, subject text, api_key_id text, end_user text, request_id text,
  client_invocation_id text, deadline_seconds double precision, tier text, price_id bigint, input_tokens bigint, output_tokens bigint,
  output_tokens_most bigint, clampable boolean, images integer, input_nano bigint, output_nano_per_million bigint, key_hash text, body_hash text,
  -- Its place in the batch, from 1.
  pos integer,
  -- Decided at admission:
  id uuid, clamped boolean, hold_tokens bigint, hold_nano bigint
);

-- The scopes that a call belongs to.
CREATE FUNCTION scopes_of(merchant_id text, api_key_id text, end_user text) RETURNS SETOF scope_name LANGUAGE sql IMMUTABLE
  AS $$ VALUES (merchant_id, 'merchant', ''), (merchant_id, 'api-key', api_key_id), (merchant_id, 'end-user', end_user) $$;

CREATE FUNCTION charges_of(p_rows limit_row[], p_calls call_intent[]) RETURNS charge[] LANGUAGE plpgsql STABLE
  AS $$
  BEGIN
    RETURN ARRAY(
      SELECT ROW(r, s.calls, s.tokens, s.nano)::charge
      FROM unnest(p_rows) AS r
      JOIN (SELECT n.merchant_id, n.scope, n.scope_id, count(*) AS calls, coalesce(sum(i.hold_tokens), 0)::bigint AS tokens,
              coalesce(sum(i.hold_nano), 0)::bigint AS nano
            FROM unnest(p_calls) AS i CROSS JOIN LATERAL scopes_of(i.merchant_id, i.api_key_id, i.end_user) AS n
            WHERE n.scope_id IS NOT NULL GROUP BY 1, 2, 3) AS s USING (merchant_id, scope, scope_id));
  END
  $$;

-- Charges admitted calls to their counters. A hard limit is written beside what it limits, so that CHECK holds it; one that was lowered
-- below what is used stands at what is used.
CREATE FUNCTION charge_counters(p_charges charge[]) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    INSERT INTO counters AS c (merchant_id, scope, scope_id, period, starts_at, in_flight, in_flight_max, requests, requests_max,
      tokens_held, tokens_max, nano_held, nano_max)
    SELECT (h.row).merchant_id, (h.row).scope, (h.row).scope_id, (h.row).period, (h.row).starts_at,
      CASE (h.row).period WHEN 'total' THEN h.calls ELSE 0 END, CASE (h.row).in_flight_mode WHEN 'hard' THEN (h.row).in_flight_max END,
      h.calls, CASE (h.row).requests_mode WHEN 'hard' THEN (h.row).requests_max END,
      h.tokens, CASE (h.row).tokens_mode WHEN 'hard' THEN (h.row).tokens_max END,
      h.nano, CASE (h.row).nano_mode WHEN 'hard' THEN (h.row).nano_max END
    FROM unnest(p_charges) AS h
    ORDER BY (h.row).merchant_id, (h.row).bit, (h.row).scope_id
    ON CONFLICT (merchant_id, scope, scope_id, period, starts_at) DO UPDATE SET
      in_flight = c.in_flight + excluded.in_flight,
      in_flight_max = CASE WHEN excluded.in_flight_max IS NOT NULL THEN greatest(excluded.in_flight_max, c.in_flight) END,
      requests = c.requests + excluded.requests,
      requests_max = CASE WHEN excluded.requests_max IS NOT NULL THEN greatest(excluded.requests_max, c.requests) END,
      tokens_held = c.tokens_held + excluded.tokens_held,
      tokens_max = CASE WHEN excluded.tokens_max IS NOT NULL THEN greatest(excluded.tokens_max, c.tokens_held + c.tokens_unknown + c.tokens_settled) END,
      nano_held = c.nano_held + excluded.nano_held,
      nano_max = CASE WHEN excluded.nano_max IS NOT NULL THEN greatest(excluded.nano_max, c.nano_held + c.nano_unknown + c.nano_settled) END;
  END
  $$;

CREATE FUNCTION count_limit_hit(p_merchant text, p_scope text, p_name text, p_mode text) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    INSERT INTO limit_hits AS h VALUES (p_merchant, (clock_timestamp() AT TIME ZONE 'UTC')::date, p_scope, p_name, p_mode, 1)
    ON CONFLICT (merchant_id, day, scope, limit_name, mode) DO UPDATE SET hits = h.hits + 1;
  END
  $$;

CREATE FUNCTION with_hold(i call_intent, p_output bigint) RETURNS call_intent LANGUAGE plpgsql IMMUTABLE
  AS $$
  BEGIN
    i.output_tokens := p_output;
    i.hold_tokens := i.input_tokens + p_output;
    i.hold_nano := i.input_nano + div(p_output::numeric * i.output_nano_per_million + 999999, 1000000)::bigint;
    RETURN i;
  END
  $$;

-- A call with its id and the output it may have by its body and plan: what the body says, the plan's default where it says nothing, the
-- plan's largest at most. p_limited: a hard limit counts on the bound, so a body that says nothing is told.
CREATE FUNCTION with_output(i call_intent, p_spec jsonb, p_limited boolean) RETURNS call_intent LANGUAGE plpgsql
  AS $$
  DECLARE
    largest bigint := (p_spec->>'maxTokens')::bigint;
    output bigint := least(coalesce(i.output_tokens, (p_spec->>'defaultMaxTokens')::bigint, i.output_tokens_most), largest);
  BEGIN
    i.id := uuid_v7();
    i.clamped := i.clampable AND (output < i.output_tokens
      OR (i.output_tokens IS NULL AND (p_limited OR p_spec ?| ARRAY['maxTokens', 'defaultMaxTokens'])));
    RETURN with_hold(i, CASE WHEN i.clamped THEN output ELSE coalesce(i.output_tokens, i.output_tokens_most) END);
  END
  $$;

-- The most output tokens that fit every hard limit of these charges, which are of the call i alone.
CREATE FUNCTION output_that_fits(p_charges charge[], i call_intent) RETURNS bigint LANGUAGE sql STABLE
  AS $$
    SELECT min(CASE u.kind
      WHEN 'tokens' THEN u.maximum - u.used - i.input_tokens
      WHEN 'money' THEN CASE WHEN u.used + i.input_nano > u.maximum THEN -1
        WHEN i.output_nano_per_million > 0 THEN div((u.maximum - u.used - i.input_nano)::numeric * 1000000, i.output_nano_per_million)::bigint
        ELSE i.output_tokens END
      ELSE CASE WHEN u.used + u.wanted <= u.maximum THEN i.output_tokens ELSE -1 END END)
    FROM limit_use(p_charges) AS u WHERE u.mode = 'hard'
  $$;

-- Admits one call by itself: where a key may have been used before, or something does not fit. Answers the call as it was charged, or with
-- id NULL and why not.
CREATE FUNCTION hold_carefully(i call_intent, p_rows limit_row[], p_spec jsonb, p_at timestamptz, OUT admitted call_intent, OUT answer jsonb)
  LANGUAGE plpgsql
  AS $$
  DECLARE
    charges charge[];
    hit record;
    refused boolean;
    fitting bigint;
    kept idempotency_keys%ROWTYPE;
  BEGIN
    IF i.key_hash IS NOT NULL THEN
      SELECT * INTO kept FROM idempotency_keys k WHERE k.merchant_id = i.merchant_id AND k.key_hash = decode(i.key_hash, 'hex');
      IF FOUND AND kept.body_hash <> decode(i.body_hash, 'hex') THEN
        answer := jsonb_build_object('verdict', 'key_reused');
        RETURN;
      ELSIF FOUND AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.merchant_id = i.merchant_id AND c.id = kept.call_id AND c.state = 'void') THEN
        answer := jsonb_build_object('verdict', 'replay', 'id', kept.call_id);
        RETURN;
      END IF;
    END IF;
    charges := charges_of(p_rows, ARRAY[i]);
    SELECT u.* INTO hit FROM limit_use(charges) AS u WHERE u.mode = 'hard' AND u.wanted > 0 AND u.used + u.wanted > u.maximum LIMIT 1;
    refused := FOUND;
    IF refused AND i.clampable AND hit.kind IN ('tokens', 'money') AND p_spec->>'whenOver' IS DISTINCT FROM 'refuse' THEN
      fitting := least(output_that_fits(charges, i), i.output_tokens);
      IF fitting >= coalesce((p_spec->>'clampFloor')::bigint, 16) THEN
        i := with_hold(i, fitting);
        i.clamped := true;
        charges := charges_of(p_rows, ARRAY[i]);
        refused := false;
      END IF;
    END IF;
    IF refused THEN
      PERFORM count_limit_hit(i.merchant_id, hit.scope, hit.name, 'hard');
      answer := jsonb_build_object('verdict', 'limit', 'limit', jsonb_build_object('name', hit.name, 'scope', hit.scope, 'max', hit.maximum,
        'used', hit.used, 'wanted', hit.wanted, 'resetsAt', to_json(hit.resets_at), 'resetSeconds', ceil(extract(epoch FROM hit.resets_at - p_at))));
      RETURN;
    END IF;
    PERFORM count_limit_hit(i.merchant_id, u.scope, u.name, 'shadow') FROM limit_use(charges) AS u
      WHERE u.mode = 'shadow' AND u.wanted > 0 AND u.used + u.wanted > u.maximum;
    PERFORM charge_counters(charges);
    IF i.key_hash IS NOT NULL THEN
      INSERT INTO idempotency_keys AS k (merchant_id, key_hash, body_hash, call_id, created_at)
      VALUES (i.merchant_id, decode(i.key_hash, 'hex'), decode(i.body_hash, 'hex'), i.id, p_at)
      ON CONFLICT (merchant_id, key_hash) DO UPDATE SET call_id = excluded.call_id;
    END IF;
    admitted := i;
  END
  $$;

-- Admits a batch of calls of any merchants: p_calls is an array of call_intent objects. One statement, one commit; all time is the
-- database's. Answers {answers: one verdict for each call, in order; limits: the hard limits of each merchant after them}. What is refused
-- leaves nothing but a count. Merchants are locked in order, so that two batches cannot wait for each other.
CREATE FUNCTION ledger_hold(p_process uuid, p_calls jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
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
      LEFT JOIN credential_versions w ON w.merchant_id = i.merchant_id AND w.credential_id = c.id AND w.version = i.credential_version AND w.state = 'current'
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

-- The hard limits of merchants: name, maximum, used, seconds to the reset.
CREATE FUNCTION limits_now(p_rows limit_row[], p_at timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE
  AS $$
  BEGIN
    RETURN (
      SELECT coalesce(jsonb_object_agg(m.merchant_id, m.limits), '{}')
      FROM (
        SELECT u.merchant_id, jsonb_agg(jsonb_build_object('name', u.name, 'max', u.maximum, 'used', u.used,
          'resetSeconds', ceil(extract(epoch FROM u.resets_at - p_at)))) AS limits
        FROM limit_use(ARRAY(SELECT ROW(r, 0, 0, 0)::charge FROM unnest(p_rows) AS r WHERE r.scope = 'merchant')) AS u
        WHERE u.mode = 'hard' GROUP BY 1) AS m);
  END
  $$;

-- Settlement -----------------------------------------------------------------------------------------------------------

CREATE TYPE call_outcome AS (
  merchant_id text, pos integer, id uuid, state text, reason text, provenance text, input_tokens bigint, output_tokens bigint,
  cache_read_tokens bigint, cache_write_5m_tokens bigint, cache_write_1h_tokens bigint, images integer, aws_status integer, aws_error_type text,
  aws_request_id text, latency_ms integer, time_to_first_byte_ms integer,
  -- Of a call that is unknown: what was seen of it before it was lost sight of.
  seen_input_tokens bigint, seen_output_tokens bigint, seen_told boolean
);
-- What is not said is 0, and only a settled call has used anything.
CREATE FUNCTION counted_outcome(o call_outcome) RETURNS call_outcome LANGUAGE plpgsql IMMUTABLE
  AS $$
  DECLARE
    used integer := (o.state = 'settled')::integer;
  BEGIN
    o.input_tokens := coalesce(o.input_tokens, 0) * used;
    o.output_tokens := coalesce(o.output_tokens, 0) * used;
    o.cache_read_tokens := coalesce(o.cache_read_tokens, 0) * used;
    o.cache_write_5m_tokens := coalesce(o.cache_write_5m_tokens, 0) * used;
    o.cache_write_1h_tokens := coalesce(o.cache_write_1h_tokens, 0) * used;
    o.images := coalesce(o.images, 0) * used;
    RETURN o;
  END
  $$;

-- A row that moved, and from where.
CREATE TYPE call_change AS (call calls, before text);

CREATE FUNCTION all_tokens(c calls) RETURNS bigint LANGUAGE sql IMMUTABLE
  AS $$ SELECT c.input_tokens + c.output_tokens + c.cache_read_tokens + c.cache_write_5m_tokens + c.cache_write_1h_tokens $$;

-- The counters a call was charged to.
CREATE FUNCTION counters_of(c calls) RETURNS TABLE (scope text, scope_id text, period text, starts_at timestamptz) LANGUAGE sql STABLE
  AS $$
    SELECT s.scope, s.scope_id, k.period, CASE k.period WHEN 'total' THEN timestamptz 'epoch' ELSE date_trunc(k.period, c.created_at, 'UTC') END
    FROM (VALUES (0, 'merchant', ''), (1, 'api-key', c.api_key_id), (2, 'end-user', c.end_user)) AS s (code, scope, scope_id)
    CROSS JOIN (VALUES (0, 'minute'), (1, 'day'), (2, 'month'), (3, 'total')) AS k (code, period)
    WHERE c.charged & (1 << (4 * s.code + k.code)) <> 0
  $$;

-- Moves what changed calls hold in their counters. More than was held counts as overrun, beside what the limit holds.
CREATE FUNCTION settle_counters(p_changes call_change[]) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    UPDATE counters AS c SET
      in_flight = c.in_flight - d.in_flight,
      tokens_held = c.tokens_held - d.tokens_held, tokens_unknown = c.tokens_unknown + d.tokens_unknown,
      tokens_settled = c.tokens_settled + d.tokens_settled, tokens_overrun = c.tokens_overrun + d.tokens_overrun,
      nano_held = c.nano_held - d.nano_held, nano_unknown = c.nano_unknown + d.nano_unknown,
      nano_settled = c.nano_settled + d.nano_settled, nano_overrun = c.nano_overrun + d.nano_overrun
    FROM (
      SELECT (x.call).merchant_id, k.scope, k.scope_id, k.period, k.starts_at,
        sum((x.before = 'held' AND k.period = 'total')::integer) AS in_flight,
        sum(m.from_held * (x.call).hold_tokens) AS tokens_held, sum(m.unknown * (x.call).hold_tokens) AS tokens_unknown,
        sum(m.settled * least(all_tokens(x.call), (x.call).hold_tokens)) AS tokens_settled,
        sum(m.settled * greatest(all_tokens(x.call) - (x.call).hold_tokens, 0)) AS tokens_overrun,
        sum(m.from_held * coalesce((x.call).hold_nano, 0)) AS nano_held, sum(m.unknown * coalesce((x.call).hold_nano, 0)) AS nano_unknown,
        sum(m.settled * least(coalesce((x.call).cost_nano, (x.call).hold_nano, 0), coalesce((x.call).hold_nano, 0))) AS nano_settled,
        sum(m.settled * greatest(coalesce((x.call).cost_nano - coalesce((x.call).hold_nano, 0), 0), 0)) AS nano_overrun
      FROM unnest(p_changes) AS x
      CROSS JOIN LATERAL (SELECT (x.before = 'held')::integer AS from_held, ((x.call).state = 'settled')::integer AS settled,
        ((x.call).state = 'unknown')::integer - (x.before = 'unknown')::integer AS unknown) AS m
      CROSS JOIN LATERAL counters_of(x.call) AS k
      GROUP BY 1, 2, 3, 4, 5) AS d
    WHERE c.merchant_id = d.merchant_id AND c.scope = d.scope AND c.scope_id = d.scope_id AND c.period = d.period AND c.starts_at = d.starts_at;
  END
  $$;

CREATE FUNCTION settle_usage(p_changes call_change[]) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    INSERT INTO usage_days AS d (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, settled, voided,
      unknown, estimated, unpriced, throttled, failed, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
      cache_write_1h_tokens, images, cost_nano, latency_ms, latencies)
    SELECT (x.call).merchant_id, u.end_user, u.day, u.model_id, u.credential_id, u.credential_source, u.api_key_id, u.region, sum(u.settled),
      sum(u.voided), sum(u.unknown), sum(u.estimated), sum(u.unpriced), sum(u.throttled), sum(u.failed), sum(u.input_tokens), sum(u.output_tokens),
      sum(u.cache_read_tokens), sum(u.cache_write_5m_tokens), sum(u.cache_write_1h_tokens), sum(u.images), sum(u.cost_nano), sum(u.latency_ms),
      latency_histogram(array_agg(u.bucket))
    FROM unnest(p_changes) AS x CROSS JOIN LATERAL usage_rows(x.call) AS u
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region) DO UPDATE SET
      settled = d.settled + excluded.settled, voided = d.voided + excluded.voided, unknown = d.unknown + excluded.unknown,
      estimated = d.estimated + excluded.estimated, unpriced = d.unpriced + excluded.unpriced, throttled = d.throttled + excluded.throttled,
      failed = d.failed + excluded.failed, input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens, cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_5m_tokens = d.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
      cache_write_1h_tokens = d.cache_write_1h_tokens + excluded.cache_write_1h_tokens, images = d.images + excluded.images,
      cost_nano = d.cost_nano + excluded.cost_nano, latency_ms = d.latency_ms + excluded.latency_ms,
      latencies = add_histograms(d.latencies, excluded.latencies);
  END
  $$;

-- A call that was unknown leaves the counts that its day had of it as it becomes settled or void. p_before: the rows as they were.
CREATE FUNCTION unsettle_usage(p_before calls[]) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    UPDATE usage_days AS d SET unknown = d.unknown - s.unknown, throttled = d.throttled - s.throttled, failed = d.failed - s.failed
    FROM (
      SELECT c.merchant_id, u.end_user, u.day, u.model_id, u.credential_id, u.credential_source, u.api_key_id, u.region,
        sum(u.unknown) AS unknown, sum(u.throttled) AS throttled, sum(u.failed) AS failed
      FROM unnest(p_before) AS c CROSS JOIN LATERAL usage_rows(c) AS u GROUP BY 1, 2, 3, 4, 5, 6, 7, 8) AS s
    WHERE d.merchant_id = s.merchant_id AND d.end_user = s.end_user AND d.day = s.day AND d.model_id = s.model_id
      AND d.credential_id = s.credential_id AND d.credential_source = s.credential_source AND d.api_key_id = s.api_key_id AND d.region = s.region;
  END
  $$;

-- Thresholds that are reached now, and the forecast of the period; each once.
CREATE FUNCTION raise_alerts(p_states merchant_state[], p_rows limit_row[], p_at timestamptz) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    WITH spent AS (
      SELECT u.*, coalesce(s.spec->'thresholds', '[50, 80, 100]') AS thresholds,
        extract(epoch FROM p_at - u.starts_at) / extract(epoch FROM u.resets_at - u.starts_at) AS elapsed
      FROM limit_use(ARRAY(SELECT ROW(r, 0, 0, 0)::charge FROM unnest(p_rows) AS r WHERE r.period <> 'minute')) AS u
      JOIN unnest(p_states) AS s USING (merchant_id)
      WHERE u.kind IN ('tokens', 'money') AND u.spent > 0 AND u.maximum > 0)
    INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used, maximum)
    SELECT s.merchant_id, uuid_v7(), 'threshold', s.scope, s.scope_id, s.name, s.starts_at, t.percent::integer, s.spent, s.maximum
    FROM spent AS s, jsonb_array_elements_text(s.thresholds) AS t (percent) WHERE s.spent::numeric * 100 >= s.maximum::numeric * t.percent::integer
    UNION ALL
    SELECT s.merchant_id, uuid_v7(), 'forecast', s.scope, s.scope_id, s.name, s.starts_at, 100, floor(s.spent / s.elapsed)::bigint, s.maximum
    FROM spent AS s WHERE s.elapsed >= 0.1 AND s.spent / s.elapsed >= s.maximum
    ON CONFLICT DO NOTHING;
  END
  $$;

-- A call that cost more than its bound breaks the promise of every hard limit it was held against: it is told, and the merchant is stopped.
CREATE FUNCTION stop_overrun(x call_change, p_hard boolean) RETURNS void LANGUAGE plpgsql
  AS $$
  BEGIN
    INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used, maximum, call_id)
    VALUES ((x.call).merchant_id, uuid_v7(), 'overrun', 'merchant', '', 'bound', (x.call).created_at, 100, all_tokens(x.call), (x.call).hold_tokens, (x.call).id)
    ON CONFLICT DO NOTHING;
    IF p_hard THEN
      UPDATE merchants SET status = 'suspended', status_reason = 'overrun' WHERE id = (x.call).merchant_id AND status = 'active';
      IF FOUND THEN
        PERFORM audit_append_all(ARRAY[ROW((x.call).merchant_id, 'system', 'merchant.stopped', 'merchant/' || (x.call).merchant_id, 'allowed',
          (x.call).request_id, jsonb_build_object('reason', 'overrun', 'callId', (x.call).id)::text)::audit_entry]);
      END IF;
    END IF;
  END
  $$;

-- Resolves a batch of calls of any merchants: p_outcomes is an array of call_outcome objects. Forward only (held -> settled | void | unknown,
-- unknown -> settled | void), each exactly once: of two racers one wins. Answers the ids that moved. Counters, sums, alerts and the audit
-- record move in the same commit.
CREATE FUNCTION ledger_settle(p_outcomes jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
  DECLARE
    outcomes call_outcome[];
    merchants text[];
    first uuid;
    last uuid;
    before calls[];
    changes call_change[];
    x call_change;
    at timestamptz;
    states merchant_state[];
    rows limit_row[];
  BEGIN
    outcomes := ARRAY(SELECT counted_outcome(o) FROM (
      SELECT DISTINCT ON (p.id) p FROM jsonb_populate_recordset(NULL::call_outcome, p_outcomes) AS p ORDER BY p.id, p.pos) AS once (o));
    SELECT array_agg(DISTINCT o.merchant_id ORDER BY o.merchant_id), min(o.id::text)::uuid, max(o.id::text)::uuid INTO merchants, first, last
      FROM unnest(outcomes) AS o;
    PERFORM 1 FROM (SELECT 1 FROM audit_heads h WHERE h.merchant_id = ANY (merchants) ORDER BY h.merchant_id FOR UPDATE) AS locked;
    -- The bounds say which partitions: those between the first and the last id.
    before := ARRAY(SELECT c FROM unnest(outcomes) AS o JOIN calls c ON c.merchant_id = o.merchant_id AND c.id = o.id WHERE c.id >= first AND c.id <= last);
    at := clock_timestamp();
    WITH moved AS (
      UPDATE calls AS c SET
        state = o.state, resolved_at = at, reason = o.reason, provenance = o.provenance, input_tokens = o.input_tokens, output_tokens = o.output_tokens,
        cache_read_tokens = o.cache_read_tokens, cache_write_5m_tokens = o.cache_write_5m_tokens, cache_write_1h_tokens = o.cache_write_1h_tokens,
        images = o.images,
        cost_nano = CASE WHEN o.state = 'settled' THEN
          cost_of(p, o.input_tokens, o.output_tokens, o.cache_read_tokens, o.cache_write_5m_tokens, o.cache_write_1h_tokens, o.images) END,
        aws_status = coalesce(o.aws_status, c.aws_status), aws_error_type = coalesce(o.aws_error_type, c.aws_error_type),
        aws_request_id = coalesce(o.aws_request_id, c.aws_request_id), latency_ms = coalesce(o.latency_ms, c.latency_ms),
        time_to_first_byte_ms = coalesce(o.time_to_first_byte_ms, c.time_to_first_byte_ms),
        seen_input_tokens = coalesce(o.seen_input_tokens, c.seen_input_tokens), seen_output_tokens = coalesce(o.seen_output_tokens, c.seen_output_tokens),
        seen_told = coalesce(o.seen_told, c.seen_told), reconcile_at = CASE o.state WHEN 'unknown' THEN at + interval '2 minutes' END
      FROM unnest(outcomes) AS o JOIN unnest(before) AS b ON b.id = o.id LEFT JOIN prices p ON p.id = b.price_id
      WHERE c.merchant_id = o.merchant_id AND c.id = o.id AND c.id >= first AND c.id <= last
        AND c.state = b.state AND (c.state = 'held' OR (c.state = 'unknown' AND o.state IN ('settled', 'void')))
      RETURNING c AS call, b.state AS before)
    SELECT array_agg(ROW(m.call, m.before)::call_change) INTO changes FROM moved AS m;
    IF changes IS NULL THEN
      RETURN '[]';
    END IF;
    PERFORM settle_counters(changes);
    IF EXISTS (SELECT 1 FROM unnest(changes) AS m WHERE m.before = 'unknown') THEN
      PERFORM unsettle_usage(ARRAY(SELECT b FROM unnest(before) AS b JOIN unnest(changes) AS m ON (m.call).id = b.id WHERE m.before = 'unknown'));
    END IF;
    PERFORM settle_usage(changes);
    PERFORM audit_append_all(ARRAY(
      SELECT ROW((m.call).merchant_id, (m.call).subject, 'call.' || (m.call).state, 'call/' || (m.call).id,
        CASE (m.call).state WHEN 'settled' THEN 'allowed' ELSE 'failed' END, (m.call).request_id,
        jsonb_strip_nulls(jsonb_build_object('reason', (m.call).reason, 'provenance', (m.call).provenance,
          'inputTokens', (m.call).input_tokens, 'outputTokens', (m.call).output_tokens, 'cacheReadTokens', (m.call).cache_read_tokens,
          'cacheWrite5mTokens', (m.call).cache_write_5m_tokens, 'cacheWrite1hTokens', (m.call).cache_write_1h_tokens,
          'costNanoUsd', (m.call).cost_nano))::text)::audit_entry
      FROM unnest(changes) AS m));

    states := ARRAY(SELECT s FROM merchants_in_force(merchants, at) AS s);
    rows := limit_rows_of(states, ARRAY(
      SELECT n FROM unnest(changes) AS m CROSS JOIN LATERAL scopes_of((m.call).merchant_id, (m.call).api_key_id, (m.call).end_user) AS n
      WHERE n.scope <> 'merchant'), at);
    IF EXISTS (SELECT 1 FROM unnest(rows) AS r WHERE coalesce(r.tokens_mode, r.nano_mode) IS NOT NULL) THEN
      PERFORM raise_alerts(states, rows, at);
    END IF;
    FOREACH x IN ARRAY changes LOOP
      IF (x.call).state = 'settled' AND (all_tokens(x.call) > (x.call).hold_tokens OR (x.call).cost_nano > (x.call).hold_nano) THEN
        PERFORM stop_overrun(x, EXISTS (SELECT 1 FROM unnest(rows) AS r WHERE r.merchant_id = (x.call).merchant_id AND 'hard' IN (r.tokens_mode, r.nano_mode)));
      END IF;
    END LOOP;
    RETURN (SELECT jsonb_agg((m.call).id) FROM unnest(changes) AS m);
  END
  $$;

-- Doubt ----------------------------------------------------------------------------------------------------------------

-- A process says that it lives. Its calls are in doubt when it has not said so for p_seconds.
CREATE FUNCTION process_alive(p_process uuid, p_seconds double precision) RETURNS void LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
    INSERT INTO processes (id, lease_until) VALUES (p_process, clock_timestamp() + make_interval(secs => p_seconds))
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
  $$;

-- Turns held calls that passed their deadline, or whose process is gone, into unknown: still counted, never refunded by time alone.
-- Merchants that another transaction works on are left for the next round, so any number of replicas may sweep. Answers how many moved.
CREATE FUNCTION ledger_sweep(p_limit integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    doubtful scope_name[];
    free text[];
    moved integer;
  BEGIN
    doubtful := ARRAY(
      SELECT ROW(c.merchant_id, 'call', c.id)::scope_name
      FROM (SELECT p.id, p.lease_until FROM processes p UNION ALL SELECT NULL, 'infinity') AS p
      CROSS JOIN LATERAL (
        SELECT h.merchant_id, h.id FROM calls h
        WHERE h.state = 'held' AND h.process_id IS NOT DISTINCT FROM p.id AND (p.lease_until < clock_timestamp() OR h.deadline < clock_timestamp())
        ORDER BY h.deadline LIMIT p_limit) AS c
      LIMIT p_limit);
    free := ARRAY(SELECT f.merchant_id FROM (
      SELECT h.merchant_id FROM audit_heads h WHERE h.merchant_id IN (SELECT d.merchant_id FROM unnest(doubtful) AS d)
      ORDER BY 1 FOR UPDATE SKIP LOCKED) AS f);
    moved := jsonb_array_length(ledger_settle((
      SELECT coalesce(jsonb_agg(jsonb_build_object('merchant_id', d.merchant_id, 'id', d.scope_id, 'state', 'unknown',
        'reason', 'no outcome: process gone or deadline passed')), '[]')
      FROM unnest(doubtful) AS d WHERE d.merchant_id = ANY (free))));
    DELETE FROM processes p WHERE p.lease_until < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT 1 FROM calls h WHERE h.state = 'held' AND h.process_id = p.id);
    RETURN moved;
  END
  $$;

-- Proof ----------------------------------------------------------------------------------------------------------------

CREATE TABLE corrections (
  merchant_id text NOT NULL REFERENCES merchants (id),
  id uuid NOT NULL DEFAULT uuid_v7(),
  call_id uuid NOT NULL,
  price_id bigint NOT NULL REFERENCES prices (id),
  delta_nano bigint NOT NULL,
  reason text NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (merchant_id, id)
);
COMMENT ON TABLE corrections IS 'What re-rating found: the difference between what a call was charged and what the named price says. Calls are never edited.';
CREATE INDEX corrections_by_call ON corrections (merchant_id, call_id);

-- Recomputes every counter and every sum of the tenant from its rows, in one snapshot. Answers what differs: nothing, always.
CREATE FUNCTION ledger_differences() RETURNS TABLE (what text, key text, kept jsonb, counted jsonb) LANGUAGE sql STABLE
  AS $$
    WITH counted AS (
      SELECT k.scope, k.scope_id, k.period, k.starts_at,
        jsonb_build_object('requests', count(*), 'inFlight', count(*) FILTER (WHERE c.state = 'held' AND k.period = 'total'),
          'tokensHeld', coalesce(sum(c.hold_tokens) FILTER (WHERE c.state = 'held'), 0),
          'tokensUnknown', coalesce(sum(c.hold_tokens) FILTER (WHERE c.state = 'unknown'), 0),
          'tokensSettled', coalesce(sum(least(all_tokens(c), c.hold_tokens)) FILTER (WHERE c.state = 'settled'), 0),
          'tokensOverrun', coalesce(sum(greatest(all_tokens(c) - c.hold_tokens, 0)) FILTER (WHERE c.state = 'settled'), 0),
          'nanoHeld', coalesce(sum(c.hold_nano) FILTER (WHERE c.state = 'held'), 0),
          'nanoUnknown', coalesce(sum(c.hold_nano) FILTER (WHERE c.state = 'unknown'), 0),
          'nanoSettled', coalesce(sum(least(coalesce(c.cost_nano, c.hold_nano, 0), coalesce(c.hold_nano, 0))) FILTER (WHERE c.state = 'settled'), 0),
          'nanoOverrun', coalesce(sum(greatest(coalesce(c.cost_nano - coalesce(c.hold_nano, 0), 0), 0)) FILTER (WHERE c.state = 'settled'), 0)) AS numbers
      FROM calls c CROSS JOIN LATERAL counters_of(c) AS k WHERE c.merchant_id = tenant() GROUP BY 1, 2, 3, 4),
    kept AS (
      SELECT k.scope, k.scope_id, k.period, k.starts_at,
        jsonb_build_object('requests', requests, 'inFlight', in_flight, 'tokensHeld', tokens_held, 'tokensUnknown', tokens_unknown,
          'tokensSettled', tokens_settled, 'tokensOverrun', tokens_overrun, 'nanoHeld', nano_held, 'nanoUnknown', nano_unknown,
          'nanoSettled', nano_settled, 'nanoOverrun', nano_overrun) AS numbers
      FROM counters k WHERE k.merchant_id = tenant()),
    summed AS (
      SELECT concat_ws('/', u.end_user, u.day, u.model_id, u.credential_id, u.credential_source, u.api_key_id, u.region) AS key,
        jsonb_build_array(sum(u.settled), sum(u.voided), sum(u.unknown), sum(u.estimated), sum(u.unpriced), sum(u.throttled), sum(u.failed),
          sum(u.input_tokens), sum(u.output_tokens), sum(u.cache_read_tokens), sum(u.cache_write_5m_tokens), sum(u.cache_write_1h_tokens),
          sum(u.images), sum(u.cost_nano), sum(coalesce(d.delta, 0)), sum(u.latency_ms), latency_histogram(array_agg(u.bucket))) AS numbers
      FROM calls c CROSS JOIN LATERAL usage_rows(c) AS u
      LEFT JOIN LATERAL (SELECT sum(r.delta_nano) AS delta FROM corrections r WHERE r.merchant_id = c.merchant_id AND r.call_id = c.id) AS d ON true
      WHERE c.merchant_id = tenant() GROUP BY 1),
    sums AS (
      SELECT concat_ws('/', end_user, day, model_id, credential_id, credential_source, api_key_id, region) AS key,
        jsonb_build_array(settled, voided, unknown, estimated, unpriced, throttled, failed, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, images, cost_nano, correction_nano, latency_ms, latencies) AS numbers
      FROM usage_days WHERE merchant_id = tenant())
    SELECT 'counter', concat_ws('/', scope, scope_id, period, starts_at), kept.numbers, counted.numbers
    FROM counted FULL JOIN kept USING (scope, scope_id, period, starts_at)
    WHERE kept.numbers IS DISTINCT FROM counted.numbers AND NOT (period = 'minute' AND kept.numbers IS NULL)
    UNION ALL
    SELECT 'usage', key, sums.numbers, summed.numbers FROM summed FULL JOIN sums USING (key)
    WHERE sums.numbers IS DISTINCT FROM summed.numbers AND coalesce(sums.numbers, '[]') <> jsonb_build_array(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, latency_histogram('{}'))
    UNION ALL
    SELECT 'cost', c.id::text, to_jsonb(c.cost_nano), to_jsonb(s.cost)
    FROM calls c LEFT JOIN prices p ON p.id = c.price_id
    CROSS JOIN LATERAL (SELECT cost_of(p, c.input_tokens, c.output_tokens, c.cache_read_tokens, c.cache_write_5m_tokens, c.cache_write_1h_tokens, c.images)) AS s (cost)
    WHERE c.merchant_id = tenant() AND c.state = 'settled' AND c.cost_nano IS DISTINCT FROM s.cost
  $$;

-- Plans and limits: set by these functions only ------------------------------------------------------------------------------

-- A new version of a plan, from now on; merchants stay on the version they are on. Answers its number.
CREATE FUNCTION plan_create(p_id text, p_spec jsonb, p_actor text, p_request_id text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    created integer;
  BEGIN
    -- The operators' chain first: it also orders two that make a version at one time.
    PERFORM audit_append('~system', p_actor, 'plan.created', 'plan/' || p_id, 'allowed', p_request_id, jsonb_build_object('spec', p_spec)::text);
    SELECT coalesce(max(version), 0) + 1 INTO created FROM plans WHERE id = p_id;
    INSERT INTO plans (id, version, spec, created_by) VALUES (p_id, created, p_spec, p_actor);
    RETURN created;
  END
  $$;

-- What an operator changes of a merchant: {planId, planVersion, status, override: {spec, endsAt} or null, invocationLogs or null}, each where
-- it is given. Answers 'done', or which thing does not exist: 'merchant', 'plan', 'credential'.
CREATE FUNCTION merchant_change(p_merchant text, p_change jsonb, p_actor text, p_request_id text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
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
      WHERE c.merchant_id = p_merchant AND c.id = p_change->'invocationLogs'->>'credentialId' AND c.state = 'active' AND c.kind = 'access-key') THEN
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

-- Replaces the limits that a merchant sets for its own API keys and end users. p_limits: [{scope, scopeId, spec}].
CREATE FUNCTION named_limits_replace(p_merchant text, p_limits jsonb, p_actor text, p_request_id text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM audit_append(p_merchant, p_actor, 'limits.set', 'merchant/' || p_merchant, 'allowed', p_request_id, jsonb_build_object('limits', p_limits)::text);
    PERFORM set_config('app.merchant_id', p_merchant, true);
    DELETE FROM limits WHERE merchant_id = p_merchant AND scope <> 'merchant';
    INSERT INTO limits (merchant_id, scope, scope_id, spec, set_by)
    SELECT p_merchant, l->>'scope', l->>'scopeId', l->'spec', p_actor FROM jsonb_array_elements(p_limits) AS l WHERE l->>'scope' <> 'merchant';
  END
  $$;

-- The tenant's limits in force and what is used of them. Of API keys and end users those with limits of their own.
CREATE FUNCTION limits_in_force() RETURNS TABLE (name text, scope text, scope_id text, mode text, maximum bigint, used bigint, spent bigint, starts_at timestamptz, resets_at timestamptz)
  LANGUAGE sql STABLE
  AS $$
    SELECT u.name, u.scope, u.scope_id, u.mode, u.maximum, u.used, u.spent, u.starts_at, u.resets_at
    FROM limit_use(ARRAY(
      SELECT ROW(r, 0, 0, 0)::charge FROM merchants_in_force(ARRAY[tenant()], now()) AS m, limit_rows(m.merchant_id, 'merchant', '', m.spec, now()) AS r
      UNION ALL
      SELECT ROW(r, 0, 0, 0)::charge FROM limits l, limit_rows(l.merchant_id, l.scope, l.scope_id, l.spec, now()) AS r
      WHERE l.merchant_id = tenant() AND l.scope <> 'merchant' AND l.scope_id <> '')) AS u
  $$;

-- What was in the ledger before gets its sums and counters.
DO $rebuild$
DECLARE
  merchant text;
BEGIN
  UPDATE calls SET charged = (1 << 1) | (1 << 2) | (1 << 3);
  FOR merchant IN SELECT DISTINCT merchant_id FROM calls LOOP
    PERFORM settle_usage(ARRAY(SELECT ROW(c, 'held')::call_change FROM calls c WHERE c.merchant_id = merchant AND c.state <> 'held'));
    INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, requests, in_flight, tokens_overrun)
    SELECT merchant, k.scope, k.scope_id, k.period, k.starts_at, count(*), count(*) FILTER (WHERE c.state = 'held' AND k.period = 'total'),
      coalesce(sum(all_tokens(c)) FILTER (WHERE c.state = 'settled'), 0)
    FROM calls c CROSS JOIN LATERAL counters_of(c) AS k WHERE c.merchant_id = merchant GROUP BY 2, 3, 4, 5;
  END LOOP;
END
$rebuild$;

-- Row security, owners, grants -------------------------------------------------------------------------------------------

ALTER TABLE prices OWNER TO merchant_bedrock_owner;
ALTER TABLE plans OWNER TO merchant_bedrock_owner;
ALTER TABLE processes OWNER TO merchant_bedrock_owner;
DO $policies$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['limits', 'counters', 'limit_hits', 'alerts', 'idempotency_keys', 'usage_days', 'corrections'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY tenant_rows ON %I USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()))', tenant_table);
    EXECUTE format('ALTER TABLE %I OWNER TO merchant_bedrock_owner', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_app', tenant_table);
  END LOOP;
END
$policies$;

-- The ledger works on the calls of many merchants in one statement, so its role sees past the tenant. It owns the four functions of the
-- ledger and their parts, nothing else, and nobody logs in as it. Every join in them carries merchant_id.
DO $ledger$
DECLARE
  tenant_table text;
BEGIN
  BEGIN
    CREATE ROLE merchant_bedrock_ledger NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
  END;
  GRANT USAGE ON SCHEMA public TO merchant_bedrock_ledger;
  FOREACH tenant_table IN ARRAY ARRAY['merchants', 'api_keys', 'credentials', 'credential_versions', 'limits', 'calls', 'counters', 'limit_hits',
    'alerts', 'idempotency_keys', 'usage_days', 'audit_events', 'audit_heads'] LOOP
    EXECUTE format('CREATE POLICY ledger_works ON %I TO merchant_bedrock_ledger USING (true) WITH CHECK (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_ledger', tenant_table);
  END LOOP;
END
$ledger$;
GRANT INSERT, UPDATE ON calls, counters, limit_hits, idempotency_keys, usage_days TO merchant_bedrock_ledger;
GRANT INSERT ON alerts, audit_events TO merchant_bedrock_ledger;
GRANT UPDATE ON audit_heads TO merchant_bedrock_ledger;
GRANT UPDATE (status, status_reason, revision) ON merchants TO merchant_bedrock_ledger;
GRANT SELECT ON prices, plans TO merchant_bedrock_ledger;
GRANT SELECT, INSERT, UPDATE, DELETE ON processes TO merchant_bedrock_ledger;

CREATE POLICY ops_reads ON usage_days FOR SELECT TO merchant_bedrock_ops USING (true);
GRANT SELECT ON usage_days TO merchant_bedrock_ops;

GRANT SELECT ON prices, plans TO merchant_bedrock_app;

DO $functions$
DECLARE
  signature text;
BEGIN
  -- Parts of the ledger: run by its functions, as their owner.
  FOREACH signature IN ARRAY ARRAY[
    'charge_counters(charge[])', 'count_limit_hit(text, text, text, text)', 'hold_carefully(call_intent, limit_row[], jsonb, timestamptz)',
    'settle_counters(call_change[])', 'settle_usage(call_change[])', 'unsettle_usage(calls[])',
    'raise_alerts(merchant_state[], limit_row[], timestamptz)', 'stop_overrun(call_change, boolean)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ledger', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
  END LOOP;
  ALTER FUNCTION audit_append_all(audit_entry[]) OWNER TO merchant_bedrock_owner;
  REVOKE ALL ON FUNCTION audit_append_all(audit_entry[]) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION audit_append_all(audit_entry[]) TO merchant_bedrock_ledger;
  -- What the service may call.
  FOREACH signature IN ARRAY ARRAY['ledger_hold(uuid, jsonb)', 'ledger_settle(jsonb)', 'ledger_sweep(integer)', 'process_alive(uuid, double precision)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ledger', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
  FOREACH signature IN ARRAY ARRAY[
    'plan_create(text, jsonb, text, text)', 'merchant_change(text, jsonb, text, text)', 'named_limits_replace(text, jsonb, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;
