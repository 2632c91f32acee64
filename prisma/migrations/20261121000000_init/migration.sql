-- The first shape of the database. Postgres 15 or newer. What each role and function may do: prisma/README.md.

-- Roles belong to the cluster, not to the database, so another database may have made them already.
DO $roles$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['merchant_bedrock_owner', 'merchant_bedrock_ops', 'merchant_bedrock_app'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', wanted);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;
END
$roles$;

GRANT USAGE ON SCHEMA public TO merchant_bedrock_owner, merchant_bedrock_ops, merchant_bedrock_app;

-- Tables ---------------------------------------------------------------------------------------------------------

CREATE TABLE merchants (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'closed')),
  direct_allowed boolean NOT NULL DEFAULT false,
  service_defaults_allowed boolean NOT NULL DEFAULT false,
  regions text[] NOT NULL DEFAULT '{}',
  default_credential_id text,
  created_at timestamptz(6) NOT NULL DEFAULT now()
);
COMMENT ON COLUMN merchants.regions IS 'Regions this merchant may use; empty means every region the service has enabled.';

CREATE TABLE api_keys (
  merchant_id text NOT NULL REFERENCES merchants (id),
  id text NOT NULL UNIQUE CHECK (id ~ '^[0-9A-Za-z]{12}$'),
  name text NOT NULL,
  environment text NOT NULL CHECK (environment IN ('live', 'test')),
  secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
  pepper_version integer NOT NULL,
  scopes text[] NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz(6) NOT NULL DEFAULT now(),
  expires_at timestamptz(6) NOT NULL,
  revoked_at timestamptz(6),
  PRIMARY KEY (merchant_id, id)
);

CREATE TABLE operator_keys (
  id text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{12}$'),
  name text NOT NULL,
  environment text NOT NULL CHECK (environment IN ('live', 'test')),
  secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
  pepper_version integer NOT NULL,
  scopes text[] NOT NULL,
  created_at timestamptz(6) NOT NULL DEFAULT now(),
  expires_at timestamptz(6) NOT NULL,
  revoked_at timestamptz(6)
);

CREATE TABLE credentials (
  merchant_id text NOT NULL REFERENCES merchants (id),
  id text NOT NULL CHECK (id ~ '^cred_[0-9A-Za-z]{22}$'),
  name text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('access-key', 'bedrock-api-key')),
  region text NOT NULL,
  account_id text CHECK (account_id ~ '^[0-9]{12}$'),
  principal_arn text,
  key_hint text NOT NULL,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'deleted')),
  current_version integer NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz(6) NOT NULL DEFAULT now(),
  deleted_at timestamptz(6),
  tested_at timestamptz(6),
  test_result text,
  PRIMARY KEY (merchant_id, id)
);

ALTER TABLE merchants ADD FOREIGN KEY (id, default_credential_id) REFERENCES credentials (merchant_id, id);

CREATE TABLE credential_versions (
  merchant_id text NOT NULL,
  credential_id text NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  state text NOT NULL CHECK (state IN ('pending', 'current', 'previous', 'retired', 'destroyed')),
  wrapped_key bytea,
  kms_key_arn text NOT NULL,
  secret_name text NOT NULL,
  secret_version_id text NOT NULL,
  created_at timestamptz(6) NOT NULL DEFAULT now(),
  destroyed_at timestamptz(6),
  PRIMARY KEY (merchant_id, credential_id, version),
  FOREIGN KEY (merchant_id, credential_id) REFERENCES credentials (merchant_id, id),
  CHECK ((state = 'destroyed') = (wrapped_key IS NULL))
);
COMMENT ON COLUMN credential_versions.wrapped_key IS 'Data key wrapped by KMS. Removing it shreds the secret: what remains in Secrets Manager cannot be opened.';
CREATE UNIQUE INDEX one_current_version ON credential_versions (merchant_id, credential_id) WHERE state = 'current';

CREATE TABLE calls (
  merchant_id text NOT NULL,
  id uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('held', 'settled', 'void', 'unknown')),
  operation text NOT NULL,
  model_id text NOT NULL,
  region text NOT NULL,
  account_id text,
  credential_source text NOT NULL CHECK (credential_source IN ('direct', 'stored', 'session', 'service-default')),
  credential_id text,
  credential_version integer,
  subject text NOT NULL,
  api_key_id text,
  request_id text NOT NULL,
  client_invocation_id text,
  created_at timestamptz(6) NOT NULL,
  deadline timestamptz(6) NOT NULL,
  resolved_at timestamptz(6),
  reason text,
  provenance text,
  input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
  output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
  cache_read_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
  cache_write_5m_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_5m_tokens >= 0),
  cache_write_1h_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_1h_tokens >= 0),
  aws_status integer,
  aws_error_type text,
  aws_request_id text,
  latency_ms integer,
  time_to_first_byte_ms integer,
  PRIMARY KEY (merchant_id, id),
  CHECK ((state = 'held') = (resolved_at IS NULL)),
  CHECK ((credential_source = 'stored') = (credential_id IS NOT NULL AND credential_version IS NOT NULL))
) PARTITION BY RANGE (id);
COMMENT ON TABLE calls IS 'The ledger: one row for each paid attempt at AWS, committed before the attempt. Ids are UUIDv7, so a month is a range of ids.';
CREATE INDEX calls_held ON calls (deadline) WHERE state = 'held';

CREATE TABLE usage_days (
  merchant_id text NOT NULL,
  day date NOT NULL,
  model_id text NOT NULL,
  credential_id text NOT NULL,
  credential_source text NOT NULL,
  api_key_id text NOT NULL,
  settled bigint NOT NULL DEFAULT 0 CHECK (settled >= 0),
  voided bigint NOT NULL DEFAULT 0 CHECK (voided >= 0),
  unknown bigint NOT NULL DEFAULT 0 CHECK (unknown >= 0),
  input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
  output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
  cache_read_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
  cache_write_5m_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_5m_tokens >= 0),
  cache_write_1h_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_1h_tokens >= 0),
  latency_ms bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (merchant_id, day, model_id, credential_id, credential_source, api_key_id)
);
COMMENT ON TABLE usage_days IS 'Sums of calls by UTC day of their start, kept in the transaction that resolves each call. Empty text stands for "none" in the key.';
CREATE INDEX usage_days_by_day ON usage_days (day);

CREATE TABLE audit_events (
  merchant_id text NOT NULL,
  seq bigint NOT NULL CHECK (seq > 0),
  at_micros bigint NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  resource text NOT NULL,
  outcome text NOT NULL,
  request_id text NOT NULL,
  body text NOT NULL,
  prev_hash bytea NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (merchant_id, seq)
);
COMMENT ON TABLE audit_events IS 'One hash chain per merchant; the chain "~system" is the operators''. Written by audit_append() only.';

CREATE TABLE audit_heads (
  merchant_id text PRIMARY KEY,
  seq bigint NOT NULL,
  hash bytea NOT NULL
);

-- Tenant context -------------------------------------------------------------------------------------------------

-- The merchant of this transaction, or NULL (then no policy lets a row through). A custom setting reverts to '' and not to NULL.
CREATE FUNCTION tenant() RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog
  AS $$ SELECT nullif(current_setting('app.merchant_id', true), '') $$;

-- Time-ordered ids -----------------------------------------------------------------------------------------------

-- The lowest UUIDv7-shaped value of a millisecond: the bound of a partition.
CREATE FUNCTION uuid_v7_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog
  AS $$ SELECT encode(substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3) || '\x00000000000000000000'::bytea, 'hex')::uuid $$;

-- RFC 9562 UUIDv7: 48 bits of milliseconds, then random. gen_random_uuid() gives version 4 (0100); bits 52 and 53 make it 7 (0111).
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE
  SET search_path = pg_catalog
  AS $$
    SELECT encode(
      set_bit(set_bit(
        substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) || substring(uuid_send(gen_random_uuid()) FROM 7),
        52, 1), 53, 1), 'hex')::uuid
  $$;

-- Audit ----------------------------------------------------------------------------------------------------------

-- One hashed field: its length in bytes as 4 big-endian bytes, then its UTF-8 bytes. Lengths first, so that no two lists of fields collide.
CREATE FUNCTION audit_field(value text) RETURNS bytea LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog
  AS $$ SELECT int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') $$;

-- Appends to the chain of p_merchant and returns the new sequence number. The head row is locked until commit: it orders everything a
-- merchant's transactions do, which ledger_open() relies on.
CREATE FUNCTION audit_append(p_merchant text, p_actor text, p_action text, p_resource text, p_outcome text, p_request_id text, p_body text)
  RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    head audit_heads%ROWTYPE;
    at_us bigint;
    digest bytea;
    previous_tenant text := current_setting('app.merchant_id', true);
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    SELECT * INTO head FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    IF NOT FOUND THEN
      INSERT INTO audit_heads VALUES (p_merchant, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
      SELECT * INTO STRICT head FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    END IF;
    at_us := floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    digest := sha256(
      convert_to('mbk-audit-v1', 'UTF8') || audit_field(p_merchant) || audit_field((head.seq + 1)::text) || audit_field(at_us::text)
      || audit_field(p_actor) || audit_field(p_action) || audit_field(p_resource) || audit_field(p_outcome)
      || audit_field(p_request_id) || audit_field(p_body) || head.hash);
    INSERT INTO audit_events VALUES
      (p_merchant, head.seq + 1, at_us, p_actor, p_action, p_resource, p_outcome, p_request_id, p_body, head.hash, digest);
    UPDATE audit_heads SET seq = head.seq + 1, hash = digest WHERE merchant_id = p_merchant;
    PERFORM set_config('app.merchant_id', coalesce(previous_tenant, ''), true);
    RETURN head.seq + 1;
  END
  $$;

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog
  AS $$ BEGIN RAISE EXCEPTION 'audit_events is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege'; END $$;
CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_table_stays BEFORE TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- Ledger ---------------------------------------------------------------------------------------------------------

-- Admits one paid call: locks the merchant's audit head first, so that a revocation either committed before (and is seen) or waits;
-- checks that merchant, API key and credential version are live; writes the row and the audit intent. One statement, one commit.
-- p_call: operation, modelId, region, accountId, source, credentialId, credentialVersion, subject, apiKeyId, requestId, clientInvocationId,
-- deadlineSeconds. Returns {verdict: 'admitted', id} or {verdict: 'merchant' | 'api_key' | 'credential' | 'source'}.
CREATE FUNCTION ledger_open(p_merchant text, p_call jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    call_id uuid;
    owner merchants%ROWTYPE;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;

    SELECT * INTO owner FROM merchants WHERE id = p_merchant;
    IF NOT FOUND OR owner.status <> 'active' THEN
      RETURN jsonb_build_object('verdict', 'merchant');
    END IF;
    IF (p_call->>'source' IN ('direct', 'session') AND NOT owner.direct_allowed)
       OR (p_call->>'source' = 'service-default' AND NOT owner.service_defaults_allowed) THEN
      RETURN jsonb_build_object('verdict', 'source');
    END IF;
    IF p_call->>'apiKeyId' IS NOT NULL AND NOT EXISTS (
      SELECT 1 FROM api_keys
      WHERE merchant_id = p_merchant AND id = p_call->>'apiKeyId' AND revoked_at IS NULL AND expires_at > clock_timestamp()) THEN
      RETURN jsonb_build_object('verdict', 'api_key');
    END IF;
    IF p_call->>'source' = 'stored' AND NOT EXISTS (
      SELECT 1 FROM credential_versions v JOIN credentials c ON c.merchant_id = v.merchant_id AND c.id = v.credential_id
      WHERE v.merchant_id = p_merchant AND v.credential_id = p_call->>'credentialId' AND v.version = (p_call->>'credentialVersion')::integer
        AND v.state = 'current' AND c.state = 'active') THEN
      RETURN jsonb_build_object('verdict', 'credential');
    END IF;

    call_id := uuid_v7();
    INSERT INTO calls (merchant_id, id, state, operation, model_id, region, account_id, credential_source, credential_id, credential_version,
                       subject, api_key_id, request_id, client_invocation_id, created_at, deadline)
    VALUES (p_merchant, call_id, 'held', p_call->>'operation', p_call->>'modelId', p_call->>'region', p_call->>'accountId', p_call->>'source',
            p_call->>'credentialId', (p_call->>'credentialVersion')::integer, p_call->>'subject', p_call->>'apiKeyId', p_call->>'requestId',
            p_call->>'clientInvocationId', clock_timestamp(), clock_timestamp() + make_interval(secs => (p_call->>'deadlineSeconds')::double precision));
    PERFORM audit_append(p_merchant, p_call->>'subject', 'call.admitted', 'call/' || call_id, 'allowed', p_call->>'requestId',
      jsonb_strip_nulls(p_call - 'subject' - 'requestId' - 'clientInvocationId' - 'deadlineSeconds')::text);
    RETURN jsonb_build_object('verdict', 'admitted', 'id', call_id);
  END
  $$;

-- Resolves one call, forward only (held -> settled | void | unknown, unknown -> settled | void) and exactly once: of two racers one gets
-- true. The day's sums move in the same commit. p_result: state, reason, provenance, the five token counts, awsStatus, awsErrorType,
-- awsRequestId, latencyMs, timeToFirstByteMs.
CREATE FUNCTION ledger_resolve(p_merchant text, p_call_id uuid, p_result jsonb) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    before text;
    done calls%ROWTYPE;
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    SELECT state INTO before FROM calls WHERE merchant_id = p_merchant AND id = p_call_id FOR UPDATE;
    IF NOT FOUND OR NOT (before = 'held' OR (before = 'unknown' AND p_result->>'state' IN ('settled', 'void'))) THEN
      RETURN false;
    END IF;
    UPDATE calls SET
      state = p_result->>'state', resolved_at = clock_timestamp(), reason = p_result->>'reason', provenance = p_result->>'provenance',
      input_tokens = coalesce((p_result->>'inputTokens')::bigint, 0), output_tokens = coalesce((p_result->>'outputTokens')::bigint, 0),
      cache_read_tokens = coalesce((p_result->>'cacheReadTokens')::bigint, 0),
      cache_write_5m_tokens = coalesce((p_result->>'cacheWrite5mTokens')::bigint, 0),
      cache_write_1h_tokens = coalesce((p_result->>'cacheWrite1hTokens')::bigint, 0),
      aws_status = (p_result->>'awsStatus')::integer, aws_error_type = p_result->>'awsErrorType', aws_request_id = p_result->>'awsRequestId',
      latency_ms = (p_result->>'latencyMs')::integer, time_to_first_byte_ms = (p_result->>'timeToFirstByteMs')::integer
    WHERE merchant_id = p_merchant AND id = p_call_id
    RETURNING * INTO done;
    PERFORM usage_add(done, before);
    RETURN true;
  END
  $$;

-- Adds a resolved call to its day; a call that was unknown leaves that count as it becomes settled or void.
CREATE FUNCTION usage_add(done calls, before text) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, public, pg_temp
  AS $$
    INSERT INTO usage_days AS d (merchant_id, day, model_id, credential_id, credential_source, api_key_id, settled, voided, unknown,
      input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, latency_ms)
    VALUES (done.merchant_id, (done.created_at AT TIME ZONE 'UTC')::date, done.model_id, coalesce(done.credential_id, ''),
      done.credential_source, coalesce(done.api_key_id, ''), (done.state = 'settled')::integer, (done.state = 'void')::integer,
      (done.state = 'unknown')::integer, done.input_tokens, done.output_tokens, done.cache_read_tokens,
      done.cache_write_5m_tokens, done.cache_write_1h_tokens, CASE WHEN done.state = 'settled' THEN coalesce(done.latency_ms, 0) ELSE 0 END)
    ON CONFLICT (merchant_id, day, model_id, credential_id, credential_source, api_key_id) DO UPDATE SET
      settled = d.settled + excluded.settled, voided = d.voided + excluded.voided,
      unknown = d.unknown + excluded.unknown - (before = 'unknown')::integer,
      input_tokens = d.input_tokens + excluded.input_tokens, output_tokens = d.output_tokens + excluded.output_tokens,
      cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_5m_tokens = d.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
      cache_write_1h_tokens = d.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
      latency_ms = d.latency_ms + excluded.latency_ms
  $$;

-- Makes the partitions of this month and of p_months more. Safe to repeat, and at the same time. Rows of a month that has no partition are
-- refused, so the service calls this at start and daily.
CREATE FUNCTION ledger_make_partitions(p_months integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    start timestamptz;
    name text;
  BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('ledger_make_partitions'));
    FOR i IN 0..p_months LOOP
      start := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
      name := 'calls_' || to_char(start AT TIME ZONE 'UTC', 'YYYY_MM');
      CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.calls FOR VALUES FROM (%L) TO (%L)',
        name, uuid_v7_floor(start), uuid_v7_floor((start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'));
      EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
      EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
      EXECUTE format('CREATE POLICY tenant_rows ON public.%I USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()))', name);
    END LOOP;
  END
  $$;

-- Questions across merchants: a closed list, each a function of the ops role, which may only read ---------------------------------------

CREATE FUNCTION find_api_key(p_id text)
  RETURNS TABLE (merchant_id text, environment text, secret_hash bytea, pepper_version integer, scopes text[], expires_at timestamptz, revoked_at timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$ SELECT merchant_id, environment, secret_hash, pepper_version, scopes, expires_at, revoked_at FROM api_keys WHERE id = p_id $$;

CREATE FUNCTION find_operator_key(p_id text)
  RETURNS TABLE (name text, environment text, secret_hash bytea, pepper_version integer, scopes text[], expires_at timestamptz, revoked_at timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$ SELECT name, environment, secret_hash, pepper_version, scopes, expires_at, revoked_at FROM operator_keys WHERE id = p_id $$;

CREATE FUNCTION overdue_calls(p_limit integer) RETURNS TABLE (merchant_id text, id uuid)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$ SELECT merchant_id, id FROM calls WHERE state = 'held' AND deadline < clock_timestamp() ORDER BY deadline LIMIT p_limit $$;

CREATE FUNCTION ops_merchants(p_after text, p_limit integer)
  RETURNS TABLE (id text, name text, status text, direct_allowed boolean, service_defaults_allowed boolean, regions text[], created_at timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT id, name, status, direct_allowed, service_defaults_allowed, regions, created_at
    FROM merchants WHERE id > p_after ORDER BY id LIMIT p_limit
  $$;

CREATE FUNCTION ops_usage(p_from date, p_to date, p_after text, p_limit integer)
  RETURNS TABLE (merchant_id text, settled bigint, voided bigint, unknown bigint, input_tokens bigint, output_tokens bigint,
                 cache_read_tokens bigint, cache_write_5m_tokens bigint, cache_write_1h_tokens bigint)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT merchant_id, sum(settled)::bigint, sum(voided)::bigint, sum(unknown)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
           sum(cache_read_tokens)::bigint, sum(cache_write_5m_tokens)::bigint, sum(cache_write_1h_tokens)::bigint
    FROM usage_days WHERE day >= p_from AND day < p_to AND merchant_id > p_after
    GROUP BY merchant_id ORDER BY merchant_id LIMIT p_limit
  $$;

-- Row security: every tenant table, for every role, its owner included ---------------------------------------------------------------

DO $policies$
DECLARE
  tenant_table text;
  key_column text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['merchants', 'api_keys', 'credentials', 'credential_versions', 'calls', 'usage_days', 'audit_events', 'audit_heads'] LOOP
    key_column := CASE tenant_table WHEN 'merchants' THEN 'id' ELSE 'merchant_id' END;
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY tenant_rows ON %I USING (%I = (SELECT tenant())) WITH CHECK (%I = (SELECT tenant()))', tenant_table, key_column, key_column);
    EXECUTE format('ALTER TABLE %I OWNER TO merchant_bedrock_owner', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_app', tenant_table);
  END LOOP;
  FOREACH tenant_table IN ARRAY ARRAY['merchants', 'api_keys', 'calls', 'usage_days'] LOOP
    EXECUTE format('CREATE POLICY ops_reads ON %I FOR SELECT TO merchant_bedrock_ops USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO merchant_bedrock_ops', tenant_table);
  END LOOP;
END
$policies$;

ALTER TABLE operator_keys OWNER TO merchant_bedrock_owner;
GRANT SELECT ON operator_keys TO merchant_bedrock_ops;

GRANT INSERT ON merchants, api_keys, credentials, credential_versions TO merchant_bedrock_app;
GRANT UPDATE (name, default_credential_id) ON merchants TO merchant_bedrock_app;
GRANT UPDATE (revoked_at) ON api_keys TO merchant_bedrock_app;
GRANT UPDATE (name, state, deleted_at, tested_at, test_result, current_version) ON credentials TO merchant_bedrock_app;
GRANT UPDATE (state, wrapped_key, destroyed_at) ON credential_versions TO merchant_bedrock_app;

-- Functions: who owns one is what it may touch; only the app may run them --------------------------------------------------------------

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY[
    'audit_append(text, text, text, text, text, text, text)', 'ledger_open(text, jsonb)', 'ledger_resolve(text, uuid, jsonb)',
    'usage_add(calls, text)', 'ledger_make_partitions(integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
  END LOOP;
  FOREACH signature IN ARRAY ARRAY[
    'find_api_key(text)', 'find_operator_key(text)', 'overdue_calls(integer)', 'ops_merchants(text, integer)', 'ops_usage(date, date, text, integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ops', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;

GRANT EXECUTE ON FUNCTION audit_append(text, text, text, text, text, text, text), ledger_open(text, jsonb), ledger_resolve(text, uuid, jsonb),
  ledger_make_partitions(integer) TO merchant_bedrock_app;
GRANT CREATE ON SCHEMA public TO merchant_bedrock_owner;
-- So that the service can tell whether the schema is the one it was built for.
GRANT SELECT ON _prisma_migrations TO merchant_bedrock_app;

SELECT ledger_make_partitions(12);
