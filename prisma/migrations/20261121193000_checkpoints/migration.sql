-- Signed checkpoints of all audit chains: docs/decisions/0013-audit-heads-are-signed-once-a-minute.md tells the whole.

-- One row for each checkpoint, in order, the newest possibly not signed yet. `body` is what is signed, byte for byte.
CREATE TABLE audit_checkpoints (
  number bigint PRIMARY KEY CHECK (number > 0),
  at timestamptz NOT NULL,
  chains integer NOT NULL,
  -- All events of all chains: says when there is something new. Not signed and not shown: how busy the house is, is nobody's business.
  events bigint NOT NULL,
  root bytea NOT NULL CHECK (octet_length(root) = 32),
  -- From it comes each leaf's salt, so that a leaf can be checked only by whom it belongs to.
  blind bytea NOT NULL CHECK (octet_length(blind) = 32),
  body text NOT NULL CHECK (octet_length(body) <= 4096),
  hash bytea NOT NULL GENERATED ALWAYS AS (sha256(body::bytea)) STORED,
  signature bytea,
  key_id text,
  public_key text,
  signed_at timestamptz,
  -- Whoever is signing it has until then; after that another may.
  sign_after timestamptz NOT NULL,
  -- The copy outside of the database: an outbox of one column.
  copied_at timestamptz,
  copy_after timestamptz NOT NULL,
  CHECK (num_nulls(signature, key_id, public_key, signed_at) IN (0, 4)),
  CHECK (copied_at IS NULL OR signature IS NOT NULL)
);
CREATE INDEX audit_checkpoints_to_copy ON audit_checkpoints (number) WHERE signature IS NOT NULL AND copied_at IS NULL;

-- What a checkpoint says of a chain: only of chains that changed since the one before. What it says of the others is their newest leaf before it.
CREATE TABLE audit_leaves (
  merchant_id text NOT NULL,
  number bigint NOT NULL,
  seq bigint NOT NULL CHECK (seq > 0),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (merchant_id, number)
);

-- The tree of the newest signed checkpoint and of the one that waits: a row for each level, its nodes of 32 bytes one after the other.
CREATE TABLE audit_trees (
  number bigint NOT NULL,
  level integer NOT NULL,
  nodes bytea NOT NULL,
  PRIMARY KEY (number, level)
);
-- Random bytes do not compress, and out of line a few of them can be read without the rest.
ALTER TABLE audit_trees ALTER COLUMN nodes SET STORAGE EXTERNAL;

CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog
  AS $$ BEGIN RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege'; END $$;
CREATE TRIGGER leaves_stay BEFORE UPDATE OR DELETE ON audit_leaves FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER leaves_table_stays BEFORE TRUNCATE ON audit_leaves FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
CREATE TRIGGER checkpoints_stay BEFORE DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER checkpoints_table_stays BEFORE TRUNCATE ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();

-- A checkpoint is signed once and copied once; nothing else of it ever changes.
CREATE FUNCTION audit_checkpoint_moves_on() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog
  AS $$
  BEGIN
    IF (NEW.number, NEW.at, NEW.chains, NEW.events, NEW.root, NEW.blind, NEW.body)
         IS DISTINCT FROM (OLD.number, OLD.at, OLD.chains, OLD.events, OLD.root, OLD.blind, OLD.body)
       OR OLD.signature IS NOT NULL AND (NEW.signature, NEW.key_id, NEW.public_key, NEW.signed_at)
         IS DISTINCT FROM (OLD.signature, OLD.key_id, OLD.public_key, OLD.signed_at)
       OR OLD.copied_at IS NOT NULL AND NEW.copied_at IS DISTINCT FROM OLD.copied_at THEN
      RAISE EXCEPTION 'audit_checkpoints is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
  END
  $$;
CREATE TRIGGER checkpoints_move_on BEFORE UPDATE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_checkpoint_moves_on();

-- The salt of a chain's leaf. The inner hash keeps one chain's salt from telling another's.
CREATE FUNCTION audit_salt(p_blind bytea, p_chain text) RETURNS bytea LANGUAGE sql IMMUTABLE
  AS $$ SELECT pg_catalog.sha256(p_blind OPERATOR(pg_catalog.||) pg_catalog.sha256(pg_catalog.convert_to(p_chain, 'UTF8'))) $$;

-- RFC 9162, 2.1.1: the hash of a leaf begins with 00, that of a node with 01.
CREATE FUNCTION audit_leaf(p_chain text, p_seq bigint, p_hash bytea, p_salt bytea) RETURNS bytea LANGUAGE sql STABLE
  AS $$
    SELECT pg_catalog.sha256('\x00'::bytea OPERATOR(pg_catalog.||) 'mbk-leaf-v1'::bytea OPERATOR(pg_catalog.||) public.audit_field(p_chain)
      OPERATOR(pg_catalog.||) public.audit_field(p_seq::text) OPERATOR(pg_catalog.||) p_salt OPERATOR(pg_catalog.||) p_hash)
  $$;

-- Writes the tree over leaves that stand in ascending order, level by level, and answers its root. A last node without a neighbour goes up as it
-- is, which gives the tree of RFC 9162.
CREATE FUNCTION audit_tree_write(p_number bigint, p_leaves bytea) RETURNS bytea LANGUAGE plpgsql
  AS $$
  DECLARE
    nodes bytea := p_leaves;
    size integer := octet_length(p_leaves) / 32;
    height integer := 0;
  BEGIN
    LOOP
      INSERT INTO audit_trees VALUES (p_number, height, nodes);
      EXIT WHEN size <= 1;
      SELECT string_agg(CASE WHEN 2 * i + 1 < size THEN sha256('\x01'::bytea || substring(nodes, 64 * i + 1, 64)) ELSE substring(nodes, 64 * i + 1, 32) END, ''::bytea ORDER BY i)
        INTO nodes FROM generate_series(0, (size + 1) / 2 - 1) AS i;
      size := (size + 1) / 2;
      height := height + 1;
    END LOOP;
    RETURN nodes;
  END
  $$;

-- What is to be signed now, for the one who asks and for p_lease_seconds nobody else: the checkpoint that still waits for its signature, or a
-- new one when the newest is p_every_seconds old or p_events behind. No row: nothing is due, or another is at it. While KMS is away one checkpoint
-- waits, and the one after it covers all that came meanwhile. Reads the heads and never the events. `rewound`: chains that are not where
-- the last checkpoint saw them or further on; nothing in this service can do that.
CREATE FUNCTION audit_checkpoint_begin(p_origin text, p_every_seconds double precision, p_events bigint, p_lease_seconds double precision)
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
    -- Before the heads are read: what had happened by then is in it.
    made.at := greatest(clock_timestamp(), last.at);
    made.blind := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    WITH heads AS MATERIALIZED (SELECT h.merchant_id, h.seq, h.hash FROM audit_heads h WHERE h.seq > 0),
    changed AS MATERIALIZED (
      SELECT h.*, l.seq AS before FROM heads h
      LEFT JOIN LATERAL (SELECT n.seq, n.hash FROM audit_leaves n WHERE n.merchant_id = h.merchant_id ORDER BY n.number DESC LIMIT 1) AS l ON true
      WHERE (l.seq, l.hash) IS DISTINCT FROM (h.seq, h.hash)),
    kept AS (INSERT INTO audit_leaves (merchant_id, number, seq, hash) SELECT n.merchant_id, made.number, n.seq, n.hash FROM changed n)
    SELECT string_agg(x.leaf, ''::bytea ORDER BY x.leaf), count(*), coalesce(sum(x.seq), 0), (SELECT count(*) FROM changed n WHERE n.seq <= n.before)
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

-- Keeps a signature: the first one that comes. The trees before are not needed any more. False when it was signed already.
CREATE FUNCTION audit_checkpoint_sign(p_number bigint, p_signature bytea, p_key_id text, p_public_key text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  BEGIN
    UPDATE audit_checkpoints c SET signature = p_signature, key_id = p_key_id, public_key = p_public_key, signed_at = clock_timestamp()
      WHERE c.number = p_number AND c.signature IS NULL;
    IF NOT FOUND THEN RETURN false; END IF;
    DELETE FROM audit_trees t WHERE t.number < p_number;
    RETURN true;
  END
  $$;

-- Takes checkpoints that are signed and not copied yet, oldest first; whoever dies over one leaves it to another when its time is over.
CREATE FUNCTION audit_checkpoints_take(p_limit integer, p_lease_seconds double precision) RETURNS SETOF bigint
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
    UPDATE audit_checkpoints c SET copy_after = clock_timestamp() + make_interval(secs => p_lease_seconds)
    WHERE c.number IN (
      SELECT n.number FROM audit_checkpoints n
      WHERE n.signature IS NOT NULL AND n.copied_at IS NULL AND n.copy_after <= clock_timestamp()
      ORDER BY n.number LIMIT p_limit FOR UPDATE SKIP LOCKED)
    RETURNING c.number
  $$;

CREATE FUNCTION audit_checkpoint_copied(p_number bigint) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$ UPDATE audit_checkpoints c SET copied_at = clock_timestamp() WHERE c.number = p_number AND c.signature IS NOT NULL AND c.copied_at IS NULL $$;

-- The tenant's own leaf in the newest signed checkpoint and its path to the root (RFC 9162, 2.1.3), from below. No row: there is none, or none
-- that knows this chain. STABLE, so that all of it is read as of one moment, whatever is signed meanwhile. Cost: a few bytes of each level.
CREATE FUNCTION audit_checkpoint_proof() RETURNS TABLE (number bigint, seq bigint, hash bytea, salt bytea, leaf_index bigint, path bytea[])
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  #variable_conflict use_column
  DECLARE
    newest audit_checkpoints%ROWTYPE;
    own audit_leaves%ROWTYPE;
    salt bytea;
    leaf bytea;
    seen bytea;
    low integer := 0;
    high integer;
    middle integer;
    place integer;
    level record;
    path bytea[] := '{}';
  BEGIN
    SELECT c.* INTO newest FROM audit_checkpoints c WHERE c.signature IS NOT NULL ORDER BY c.number DESC LIMIT 1;
    SELECT l.* INTO own FROM audit_leaves l WHERE l.merchant_id = tenant() AND l.number <= newest.number ORDER BY l.number DESC LIMIT 1;
    IF own.number IS NULL THEN RETURN; END IF;
    salt := audit_salt(newest.blind, own.merchant_id);
    leaf := audit_leaf(own.merchant_id, own.seq, own.hash, salt);
    high := newest.chains - 1;
    WHILE low < high LOOP
      middle := (low + high) / 2;
      SELECT substring(t.nodes, 32 * middle + 1, 32) INTO seen FROM audit_trees t WHERE t.number = newest.number AND t.level = 0;
      IF seen < leaf THEN low := middle + 1; ELSE high := middle; END IF;
    END LOOP;
    place := low;
    FOR level IN
      SELECT t.level, octet_length(t.nodes) / 32 AS size, substring(t.nodes, 32 * ((low >> t.level) # 1) + 1, 32) AS sibling
      FROM audit_trees t WHERE t.number = newest.number ORDER BY t.level
    LOOP
      IF level.size > 1 AND ((place >> level.level) # 1) < level.size THEN path := path || level.sibling; END IF;
    END LOOP;
    RETURN QUERY SELECT newest.number, own.seq, own.hash, salt, place::bigint, path;
  END
  $$;

-- Row security, owners, grants -------------------------------------------------------------------------------------------------

ALTER TABLE audit_checkpoints OWNER TO merchant_bedrock_owner;
ALTER TABLE audit_trees OWNER TO merchant_bedrock_owner;
ALTER TABLE audit_leaves OWNER TO merchant_bedrock_owner;
ALTER TABLE audit_leaves ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_leaves FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON audit_leaves USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()));
-- Checkpoints are no tenant's: hashes, numbers and times. Trees are read through audit_checkpoint_proof() only.
GRANT SELECT ON audit_checkpoints, audit_leaves TO merchant_bedrock_app;

-- Checkpoints are about the heads of all chains, so their role sees past the tenant: where chains end, and nothing of what is in them.
DO $notary$
BEGIN
  BEGIN
    CREATE ROLE merchant_bedrock_notary NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
  END;
END
$notary$;
GRANT USAGE ON SCHEMA public TO merchant_bedrock_notary;
CREATE POLICY notary_works ON audit_heads FOR SELECT TO merchant_bedrock_notary USING (true);
CREATE POLICY notary_works ON audit_leaves TO merchant_bedrock_notary USING (true) WITH CHECK (true);
GRANT SELECT ON audit_heads TO merchant_bedrock_notary;
GRANT SELECT, INSERT ON audit_leaves TO merchant_bedrock_notary;
GRANT SELECT, INSERT, DELETE ON audit_trees TO merchant_bedrock_notary;
GRANT SELECT, INSERT, UPDATE (signature, key_id, public_key, signed_at, sign_after, copied_at, copy_after) ON audit_checkpoints TO merchant_bedrock_notary;

DO $functions$
DECLARE
  signature text;
BEGIN
  ALTER FUNCTION audit_tree_write(bigint, bytea) OWNER TO merchant_bedrock_notary;
  REVOKE ALL ON FUNCTION audit_tree_write(bigint, bytea) FROM PUBLIC;
  FOREACH signature IN ARRAY ARRAY[
    'audit_checkpoint_begin(text, double precision, bigint, double precision)', 'audit_checkpoint_sign(bigint, bytea, text, text)',
    'audit_checkpoints_take(integer, double precision)', 'audit_checkpoint_copied(bigint)', 'audit_checkpoint_proof()'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO merchant_bedrock_notary', signature);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO merchant_bedrock_app', signature);
  END LOOP;
END
$functions$;
