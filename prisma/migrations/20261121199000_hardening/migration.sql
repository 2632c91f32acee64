-- No function of ours is for everyone. Those that were run with their caller's rights, so a login without tables got nothing out of them; but a
-- rule without exceptions is one that a test can keep (test/server/catalog.test.ts).
DO $$
DECLARE
  signature regprocedure;
BEGIN
  FOR signature IN
    SELECT p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
      -- What an extension brought is not ours.
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', signature);
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO merchant_bedrock_owner, merchant_bedrock_ledger, merchant_bedrock_ops, merchant_bedrock_notary, merchant_bedrock_app', signature);
  END LOOP;
END $$;
