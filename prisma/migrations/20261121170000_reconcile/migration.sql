-- Unknown calls are resolved: from the merchant's invocation logs, by the plan's policy, or by an operator. prisma/README.md tells the whole.

ALTER TABLE merchants ADD COLUMN invocation_logs jsonb CHECK (jsonb_typeof(invocation_logs) = 'object');
COMMENT ON COLUMN merchants.invocation_logs IS 'Where the merchant''s model invocation logs are (src/domain/invocation-logs.ts); NULL: nowhere that we may read.';

ALTER TABLE calls
  ADD COLUMN hold_images integer CHECK (hold_images >= 0),
  ADD COLUMN seen_input_tokens bigint CHECK (seen_input_tokens >= 0),
  ADD COLUMN seen_output_tokens bigint CHECK (seen_output_tokens >= 0),
  ADD COLUMN seen_told boolean,
  ADD COLUMN reconcile_at timestamptz(3),
  ADD COLUMN reconcile_tries integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN calls.seen_output_tokens IS 'Of a call that became unknown: the output that AWS reported, or no fewer tokens than the bytes that came can be.';
COMMENT ON COLUMN calls.seen_told IS 'AWS told seen_output_tokens: it is all of the output. Else it is only what came, and some of what is billed may never come (hidden reasoning).';
CREATE INDEX calls_to_reconcile ON calls (reconcile_at) WHERE state = 'unknown';
UPDATE calls SET reconcile_at = now() WHERE state = 'unknown';

-- Claims unknown calls that are due, for whoever asks: each claim puts off the next one, so of many replicas one works on a call, and one that
-- dies over it is followed by another. Takes no lock but those of the rows, and waits for none.
CREATE FUNCTION reconcile_claim(p_limit integer)
  RETURNS TABLE (merchant_id text, id uuid, region text, account_id text, aws_request_id text, created_at timestamptz, deadline timestamptz,
                 hold_tokens bigint, max_tokens bigint, hold_images integer, seen_input_tokens bigint, seen_output_tokens bigint, seen_told boolean,
                 tries integer, invocation_logs jsonb, when_unknown text, overdue boolean)
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
    WITH claimed AS MATERIALIZED (
      SELECT c.merchant_id, c.id, c.resolved_at FROM calls c
      WHERE c.state = 'unknown' AND c.reconcile_at <= clock_timestamp() ORDER BY c.reconcile_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
    ruled AS (
      SELECT k.merchant_id, k.id, coalesce(f.spec->>'whenUnknown', 'most') AS when_unknown,
        k.resolved_at + make_interval(mins => coalesce((f.spec->>'unknownAfterMinutes')::integer, 1440)) AS due
      FROM claimed k JOIN merchants_in_force(ARRAY(SELECT DISTINCT d.merchant_id FROM claimed d), clock_timestamp()) AS f ON f.merchant_id = k.merchant_id)
    UPDATE calls AS c SET
      reconcile_tries = c.reconcile_tries + 1,
      reconcile_at = CASE
        WHEN r.due > clock_timestamp() THEN
          least(r.due, clock_timestamp() + least(interval '1 hour', interval '2 minutes' * power(2, least(c.reconcile_tries, 10))))
        WHEN r.when_unknown = 'keep' THEN clock_timestamp() + interval '1 day'
        ELSE clock_timestamp() + interval '10 minutes' END
    FROM ruled r JOIN merchants m ON m.id = r.merchant_id
    WHERE c.merchant_id = r.merchant_id AND c.id = r.id
    RETURNING c.merchant_id, c.id, c.region, c.account_id, c.aws_request_id, c.created_at, c.deadline, c.hold_tokens, c.max_tokens, c.hold_images,
      c.seen_input_tokens, c.seen_output_tokens, c.seen_told, c.reconcile_tries, m.invocation_logs, r.when_unknown, r.due <= clock_timestamp()
  $$;

-- An operator decides what an unknown call was. p_outcome: the members of call_outcome that say how it ended.
-- Answers 'done', 'missing', or the state of a call that is not unknown.
CREATE FUNCTION call_resolve(p_merchant text, p_call uuid, p_outcome jsonb, p_reason text, p_actor text, p_request_id text)
  RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    found_state text;
  BEGIN
    PERFORM 1 FROM audit_heads h WHERE h.merchant_id = p_merchant FOR UPDATE;
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

-- Calls whose end nobody knows, by merchant: how many, since when, and what they hold.
CREATE FUNCTION ops_unknown(p_after text, p_limit integer)
  RETURNS TABLE (merchant_id text, calls bigint, oldest timestamptz, hold_tokens bigint, hold_nano bigint)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
  AS $$
    SELECT c.merchant_id, count(*), min(c.resolved_at), sum(c.hold_tokens)::bigint, coalesce(sum(c.hold_nano), 0)::bigint
    FROM calls c WHERE c.state = 'unknown' AND c.merchant_id > p_after
    GROUP BY c.merchant_id ORDER BY c.merchant_id LIMIT p_limit
  $$;

DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY['reconcile_claim(integer)', 'call_resolve(text, uuid, jsonb, text, text, text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_ledger', signature);
  END LOOP;
  ALTER FUNCTION ops_unknown(text, integer) OWNER TO merchant_bedrock_ops;
  FOREACH signature IN ARRAY ARRAY['reconcile_claim(integer)', 'call_resolve(text, uuid, jsonb, text, text, text)', 'ops_unknown(text, integer)'] LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;
