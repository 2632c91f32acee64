-- Checkpoints tell of chains that are gone, and of being late.

-- What is to be signed now, for the one who asks and for p_lease_seconds nobody else: the checkpoint that still waits for its signature, or a
-- new one when the newest is p_every_seconds old or p_events behind. No row: nothing is due, or another is at it. While KMS is away one checkpoint
-- waits, and the one after it covers all that came meanwhile. Reads the heads and never the events. `rewound`: chains that are not where
-- the last checkpoint saw them or further on, and chains of the last one that are not there at all; nothing in this service can do that.
CREATE OR REPLACE FUNCTION audit_checkpoint_begin(p_origin text, p_every_seconds double precision, p_events bigint, p_lease_seconds double precision)
  RETURNS TABLE (number bigint, body text, at timestamptz, rewound bigint)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    last audit_checkpoints%ROWTYPE;
    made audit_checkpoints%ROWTYPE;
    total bigint;
    leaves bytea;
    backwards bigint;
  BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('audit_checkpoint_begin', 0)) THEN RETURN; END IF;
    SELECT c.* INTO last FROM audit_checkpoints c ORDER BY c.number DESC LIMIT 1;
    IF last.number IS NOT NULL AND last.signature IS NULL THEN
      UPDATE audit_checkpoints c SET sign_after = clock_timestamp() + make_interval(secs => p_lease_seconds)
        WHERE c.number = last.number AND c.sign_after <= clock_timestamp();
      IF FOUND THEN RETURN QUERY SELECT last.number, last.body, last.at, 0::bigint; END IF;
      RETURN;
    END IF;
    SELECT coalesce(sum(h.seq), 0)::bigint INTO total FROM audit_heads h;
    IF total = coalesce(last.events, 0)
       OR last.at > clock_timestamp() - make_interval(secs => p_every_seconds) AND abs(total - last.events) < p_events THEN
      RETURN;
    END IF;
    made.number := coalesce(last.number, 0) + 1;
    -- Before the heads are read: what was committed by then is in it; what a transaction had written that was still open is in the next one.
    made.at := greatest(clock_timestamp(), last.at);
    made.blind := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    WITH heads AS MATERIALIZED (SELECT h.merchant_id, h.seq, h.hash FROM audit_heads h WHERE h.seq > 0),
    changed AS MATERIALIZED (
      SELECT h.*, l.seq AS before FROM heads h
      LEFT JOIN LATERAL (SELECT n.seq, n.hash FROM audit_leaves n WHERE n.merchant_id = h.merchant_id ORDER BY n.number DESC LIMIT 1) AS l ON true
      WHERE (l.seq, l.hash) IS DISTINCT FROM (h.seq, h.hash)),
    kept AS (INSERT INTO audit_leaves (merchant_id, number, seq, hash) SELECT n.merchant_id, made.number, n.seq, n.hash FROM changed n)
    SELECT string_agg(x.leaf, ''::bytea ORDER BY x.leaf), count(*), coalesce(sum(x.seq), 0),
        (SELECT count(*) FROM changed n WHERE n.seq <= n.before)
        -- Of the chains of the last one those that have a leaf and are still there; a new chain does not stand in for one that is gone.
        + greatest(0, last.chains - count(*) + (SELECT count(*) FROM changed n WHERE n.before IS NULL))
      INTO leaves, made.chains, made.events, backwards
      FROM (SELECT audit_leaf(h.merchant_id, h.seq, h.hash, audit_salt(made.blind, h.merchant_id)) AS leaf, h.seq FROM heads h) AS x;
    made.root := audit_tree_write(made.number, leaves);
    made.body := format('{"format":"mbk-checkpoint-v1","origin":%s,"number":%s,"at":"%s","chains":%s,"root":"%s","previous":"%s"}',
      to_json(p_origin), made.number, to_char(made.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), made.chains,
      encode(made.root, 'hex'), encode(coalesce(last.hash, decode(repeat('00', 32), 'hex')), 'hex'));
    INSERT INTO audit_checkpoints (number, at, chains, events, root, blind, body, sign_after, copy_after)
      VALUES (made.number, made.at, made.chains, made.events, made.root, made.blind, made.body,
        clock_timestamp() + make_interval(secs => p_lease_seconds), made.at);
    RETURN QUERY SELECT made.number, made.body, made.at, backwards;
  END
  $$;

-- Whether there is anything that the newest checkpoint, signed or not, does not have. Reads the heads: 20 ms for 100,000 chains.
CREATE FUNCTION audit_checkpoint_behind() RETURNS boolean
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    SELECT coalesce(sum(h.seq), 0) <> coalesce((SELECT c.events FROM audit_checkpoints c ORDER BY c.number DESC LIMIT 1), 0) FROM audit_heads h
  $$;

ALTER FUNCTION audit_checkpoint_behind() OWNER TO merchant_bedrock_notary;
REVOKE ALL ON FUNCTION audit_checkpoint_begin(text, double precision, bigint, double precision), audit_checkpoint_behind() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_checkpoint_begin(text, double precision, bigint, double precision), audit_checkpoint_behind() TO merchant_bedrock_app;
