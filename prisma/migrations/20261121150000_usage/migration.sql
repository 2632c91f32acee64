-- Statistics: what reports, records and the operators' page of sums need beside what is there. It only adds.

-- Reports by end user read the users' rows of some days; without this they would read those of all days.
CREATE INDEX usage_days_of_users ON usage_days (merchant_id, day) WHERE end_user <> '*';

-- Unknown calls of a merchant in the order of pages. Few rows, and none is written while calls go well.
CREATE INDEX calls_unknown_by_id ON calls (merchant_id, id) WHERE state = 'unknown';

-- Sums of all merchants, or of p_merchant alone, by merchant and, where asked, by model and day: one page in that order, after p_after
-- (merchant, model and day as the last row has them, '' for what it was not grouped by). Goes merchant by merchant, so it reads no further than the page.
CREATE FUNCTION ops_usage_page(p_from date, p_to date, p_merchant text, p_by_model boolean, p_by_day boolean, p_after text[], p_limit integer)
  RETURNS TABLE (merchant_id text, model_id text, day text,
                 settled bigint, voided bigint, unknown bigint, estimated bigint, unpriced bigint, throttled bigint, failed bigint,
                 input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_5m_tokens bigint,
                 cache_write_1h_tokens bigint, images bigint, cost_nano bigint, correction_nano bigint, latency_ms bigint,
                 latencies bigint[])
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    merchant text;
    left_over integer := p_limit;
    found_rows integer;
  BEGIN
    FOR merchant IN SELECT m.id FROM merchants m WHERE m.id >= p_after[1] AND (p_merchant IS NULL OR m.id = p_merchant) ORDER BY m.id LOOP
      RETURN QUERY
      SELECT merchant, g.model, g.day,
        sum(d.settled)::bigint, sum(d.voided)::bigint, sum(d.unknown)::bigint, sum(d.estimated)::bigint, sum(d.unpriced)::bigint,
        sum(d.throttled)::bigint, sum(d.failed)::bigint, sum(d.input_tokens)::bigint, sum(d.output_tokens)::bigint,
        sum(d.cache_read_tokens)::bigint, sum(d.cache_write_5m_tokens)::bigint, sum(d.cache_write_1h_tokens)::bigint,
        sum(d.images)::bigint, sum(d.cost_nano)::bigint, sum(d.correction_nano)::bigint, sum(d.latency_ms)::bigint,
        ARRAY[
          sum(d.latencies[1]), sum(d.latencies[2]), sum(d.latencies[3]), sum(d.latencies[4]), sum(d.latencies[5]), sum(d.latencies[6]),
          sum(d.latencies[7]), sum(d.latencies[8]), sum(d.latencies[9]), sum(d.latencies[10]), sum(d.latencies[11]), sum(d.latencies[12]),
          sum(d.latencies[13]), sum(d.latencies[14]), sum(d.latencies[15]), sum(d.latencies[16]), sum(d.latencies[17]),
          sum(d.latencies[18]), sum(d.latencies[19]), sum(d.latencies[20]), sum(d.latencies[21]), sum(d.latencies[22]),
          sum(d.latencies[23]), sum(d.latencies[24]), sum(d.latencies[25]), sum(d.latencies[26]), sum(d.latencies[27]),
          sum(d.latencies[28]), sum(d.latencies[29]), sum(d.latencies[30]), sum(d.latencies[31]), sum(d.latencies[32]),
          sum(d.latencies[33]), sum(d.latencies[34]), sum(d.latencies[35]), sum(d.latencies[36]), sum(d.latencies[37]),
          sum(d.latencies[38]), sum(d.latencies[39]), sum(d.latencies[40])]::bigint[]
      FROM usage_days d CROSS JOIN LATERAL (
        SELECT CASE WHEN p_by_model THEN d.model_id ELSE '' END, CASE WHEN p_by_day THEN d.day::text ELSE '' END) AS g (model, day)
      WHERE d.merchant_id = merchant AND d.end_user = '*' AND d.day >= p_from AND d.day < p_to
        AND (merchant, g.model, g.day) > (p_after[1], p_after[2], p_after[3])
      GROUP BY g.model, g.day ORDER BY g.model, g.day LIMIT left_over;
      GET DIAGNOSTICS found_rows = ROW_COUNT;
      left_over := left_over - found_rows;
      EXIT WHEN left_over <= 0;
    END LOOP;
  END
  $$;

ALTER FUNCTION ops_usage_page(date, date, text, boolean, boolean, text[], integer) OWNER TO merchant_bedrock_ops;
REVOKE ALL ON FUNCTION ops_usage_page(date, date, text, boolean, boolean, text[], integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops_usage_page(date, date, text, boolean, boolean, text[], integer) TO merchant_bedrock_app;
