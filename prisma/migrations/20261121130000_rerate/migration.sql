-- The life of the price book: files are imported, and calls of a time are rated again by the prices that are in force now.

-- The price in force at a moment: of the region itself, else of every region; each key in its latest revision, the latest key that began.
-- PriceBook.find (src/ledger/price-book.ts) answers the same.
CREATE FUNCTION price_in_force(p_model text, p_region text, p_profile text, p_tier text, p_at timestamptz) RETURNS SETOF prices LANGUAGE sql STABLE
  AS $$
    SELECT (l.p).*
    FROM (SELECT DISTINCT ON (p.region, p.valid_from) p
          FROM prices p
          WHERE p.model_id = p_model AND p.region IN (p_region, '*') AND p.profile = p_profile AND p.tier = p_tier AND p.valid_from <= p_at
          ORDER BY p.region, p.valid_from, p.revision DESC) AS l
    WHERE NOT (l.p).withdrawn
    ORDER BY (l.p).region = '*', (l.p).valid_from DESC LIMIT 1
  $$;

-- How a call reached its model: what its model id has before the foundation model's. Admission took that off (profileOf,
-- src/ledger/price-book.ts), so nothing needs to be kept beside the two ids, and the list of prefixes stands in one place. NULL: an
-- application profile, which does not say; the price that the call was charged by knows.
CREATE FUNCTION profile_between(p_model text, p_base text) RETURNS text LANGUAGE sql IMMUTABLE
  AS $$
    SELECT CASE
      WHEN p_model = p_base OR right(p_model, length(p_base) + 1) = '/' || p_base THEN 'in-region'
      WHEN right('/' || p_model, length(p_base) + 8) = '/global.' || p_base THEN 'global'
      WHEN p_model LIKE '%:provisioned-model/%' THEN 'provisioned'
      WHEN p_model LIKE '%:application-inference-profile/%' THEN NULL
      ELSE 'geographic' END
  $$;

-- Makes p_rows, an array of price objects, the whole price book. Rows are never edited: a new key is revision 1, one that says something else
-- is the next revision, one that is missing is the next revision with withdrawn. p_book: the newest id of the book that p_digest was made
-- against; when another import came between, nothing is done and NULL is answered. Else: {added, changed, removed}.
CREATE FUNCTION prices_import(p_rows jsonb, p_book bigint, p_digest text, p_actor text, p_request_id text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    beside CONSTANT text[] := '{id, revision, withdrawn, imported_by, imported_at}';
    done jsonb;
  BEGIN
    PERFORM set_config('app.merchant_id', '~system', true);
    -- The head of the operators' chain first, made where this is its first event: it orders two imports.
    INSERT INTO audit_heads VALUES ('~system', 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM audit_heads h WHERE h.merchant_id = '~system' FOR UPDATE;
    IF p_book <> (SELECT coalesce(max(id), 0) FROM prices) THEN
      RETURN NULL;
    END IF;
    WITH latest AS (
      SELECT DISTINCT ON (p.model_id, p.region, p.profile, p.tier, p.valid_from) p
      FROM prices p ORDER BY p.model_id, p.region, p.profile, p.tier, p.valid_from, p.revision DESC),
    steps AS MATERIALIZED (
      SELECT k.kind, CASE k.kind WHEN 'removed' THEN l.p ELSE g END AS row, coalesce((l.p).revision, 0) + 1 AS revision
      FROM jsonb_populate_recordset(NULL::prices, p_rows) AS g
      FULL JOIN latest AS l
        ON ((l.p).model_id, (l.p).region, (l.p).profile, (l.p).tier, (l.p).valid_from) = (g.model_id, g.region, g.profile, g.tier, g.valid_from)
      CROSS JOIN LATERAL (SELECT CASE
        WHEN g.model_id IS NULL THEN CASE WHEN NOT (l.p).withdrawn THEN 'removed' END
        WHEN (l.p).id IS NULL OR (l.p).withdrawn THEN 'added'
        WHEN to_jsonb(l.p) - beside <> to_jsonb(g) - beside THEN 'changed' END) AS k (kind)
      WHERE k.kind IS NOT NULL),
    written AS (
      INSERT INTO prices (model_id, region, profile, tier, valid_from, revision, withdrawn, input, output, cache_read, cache_write_5m,
        cache_write_1h, image, embedding, request, context_tokens, max_output_tokens, source, source_date, imported_by)
      SELECT (s.row).model_id, (s.row).region, (s.row).profile, (s.row).tier, (s.row).valid_from, s.revision, s.kind = 'removed',
        (s.row).input, (s.row).output, (s.row).cache_read, (s.row).cache_write_5m, (s.row).cache_write_1h, (s.row).image, (s.row).embedding,
        (s.row).request, (s.row).context_tokens, (s.row).max_output_tokens, (s.row).source, (s.row).source_date, p_actor
      FROM steps AS s)
    SELECT jsonb_build_object('added', count(*) FILTER (WHERE kind = 'added'), 'changed', count(*) FILTER (WHERE kind = 'changed'),
      'removed', count(*) FILTER (WHERE kind = 'removed')) INTO done FROM steps;
    PERFORM audit_append_all(ARRAY[
      ROW('~system', p_actor, 'prices.imported', 'prices', 'allowed', p_request_id, (done || jsonb_build_object('digest', p_digest))::text)::audit_entry]);
    PERFORM set_config('app.merchant_id', '', true);
    RETURN done;
  END
  $$;

-- Rates settled calls of one merchant that began from p_from on and before p_to by the prices in force now at their beginning, and writes down
-- each difference to what they stand at (their cost and all corrections before). Calls are never edited; an unpriced call stands at 0. So
-- after it cost + corrections = the cost by the price now in force, and a second run finds nothing.
--
-- A call without a price, or that used a kind without one, stays as it stands: unpriced is not free.
--
-- Counters do not move, nor do limits: a limit is about what was admitted, at the price of that moment. To move them afterwards could pass
-- a hard maximum by a call that kept to it, or give room in a period that was used up. What a correction takes from a prepaid credit or
-- gives back is an operator's decision, by the merchant's nanoUsdCredit.
--
-- One page of at most p_limit calls after p_after, so that the merchant's head is locked for moments only. Answers one row: next is where
-- to go on, NULL at the end; no row when there is no such merchant. With p_dry_run nothing is locked or written.
CREATE FUNCTION ledger_rerate(p_merchant text, p_from timestamptz, p_to timestamptz, p_actor text, p_reason text, p_request_id text,
    p_dry_run boolean, p_after uuid DEFAULT NULL, p_limit integer DEFAULT 1000)
  RETURNS TABLE (calls integer, corrected integer, delta_nano numeric, without_price integer, next uuid) LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    IF NOT p_dry_run THEN
      -- Also orders two that rate the same calls: the second one sees the corrections of the first.
      PERFORM 1 FROM audit_heads h WHERE h.merchant_id = p_merchant FOR UPDATE;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM merchants m WHERE m.id = p_merchant) THEN
      RETURN;
    END IF;
    WITH page AS MATERIALIZED (
      -- The bounds on the id say which partitions. They are wider: created_at is a moment before the id was made, and clocks are set.
      SELECT c FROM calls AS c
      WHERE c.merchant_id = p_merchant AND c.state = 'settled' AND c.created_at >= p_from AND c.created_at < p_to
        AND c.id >= uuid_v7_floor(p_from - interval '10 minutes') AND c.id < uuid_v7_floor(p_to + interval '10 minutes')
        AND c.id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
      ORDER BY c.id LIMIT p_limit),
    rated AS MATERIALIZED (
      SELECT c, p.id AS price_id, s.cost - coalesce((c).cost_nano, 0) - coalesce(e.delta, 0) AS delta
      FROM page
      LEFT JOIN prices AS charged ON charged.id = (c).price_id
      LEFT JOIN LATERAL price_in_force((c).base_model_id, (c).region, coalesce(charged.profile, profile_between((c).model_id, (c).base_model_id)),
        (c).tier, (c).created_at) AS p ON true
      CROSS JOIN LATERAL (SELECT cost_of(p, (c).input_tokens, (c).output_tokens, (c).cache_read_tokens, (c).cache_write_5m_tokens,
        (c).cache_write_1h_tokens, (c).images)) AS s (cost)
      LEFT JOIN LATERAL (
        SELECT sum(r.delta_nano) AS delta FROM corrections r WHERE r.merchant_id = p_merchant AND r.call_id = (c).id) AS e ON true),
    written AS (
      INSERT INTO corrections (merchant_id, call_id, price_id, delta_nano, reason, created_by)
      SELECT p_merchant, (r.c).id, r.price_id, r.delta, p_reason, p_actor FROM rated AS r WHERE r.delta <> 0 AND NOT p_dry_run),
    moved AS (
      UPDATE usage_days AS d SET correction_nano = d.correction_nano + s.delta
      FROM (
        SELECT u.end_user, u.day, u.model_id, u.credential_id, u.credential_source, u.api_key_id, u.region, sum(r.delta) AS delta
        FROM rated AS r CROSS JOIN LATERAL usage_rows(r.c) AS u WHERE r.delta <> 0 AND NOT p_dry_run GROUP BY 1, 2, 3, 4, 5, 6, 7) AS s
      WHERE d.merchant_id = p_merchant AND d.end_user = s.end_user AND d.day = s.day AND d.model_id = s.model_id
        AND d.credential_id = s.credential_id AND d.credential_source = s.credential_source AND d.api_key_id = s.api_key_id AND d.region = s.region)
    SELECT count(*), count(*) FILTER (WHERE r.delta <> 0), coalesce(sum(r.delta), 0), count(*) FILTER (WHERE r.delta IS NULL),
      CASE WHEN count(*) = p_limit THEN (max((r.c).id::text))::uuid END
      INTO calls, corrected, delta_nano, without_price, next FROM rated AS r;
    IF corrected > 0 AND NOT p_dry_run THEN
      PERFORM audit_append_all(ARRAY[ROW(p_merchant, p_actor, 'calls.rerated', 'merchant/' || p_merchant, 'allowed', p_request_id,
        jsonb_build_object('from', to_json(p_from), 'to', to_json(p_to), 'corrected', corrected, 'deltaNanoUsd', delta_nano, 'reason', p_reason)::text)::audit_entry]);
    END IF;
    PERFORM set_config('app.merchant_id', '', true);
    RETURN NEXT;
  END
  $$;

-- Neither is for the service: prices and corrections are an administrator's (npm run prices).
DO $functions$
DECLARE
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY['prices_import(jsonb, bigint, text, text, text)',
    'ledger_rerate(text, timestamptz, timestamptz, text, text, text, boolean, uuid, integer)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_owner', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
  END LOOP;
END
$functions$;
