-- As in the migration rotation, and an operator's word on another account ends with the next rotation, whichever account that was to.
-- Puts the new version in force, the one before in its overlap: one commit, with its audit record. p_found: {accountId, arn, warnings}.
-- Answers 'promoted', 'account' (it is of another account than the credential, and nobody approved that), or how the rotation stands.
CREATE OR REPLACE FUNCTION rotation_promote(p_merchant text, p_credential text, p_version integer, p_rules jsonb, p_found jsonb, p_actor text, p_request_id text)
  RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
  AS $$
  DECLARE
    at timestamptz;
    c credentials%ROWTYPE;
    r credential_rotations%ROWTYPE;
    new_row credential_versions%ROWTYPE;
    ends timestamptz;
    account text := p_found->>'accountId';
  BEGIN
    PERFORM set_config('app.merchant_id', p_merchant, true);
    PERFORM 1 FROM audit_heads WHERE merchant_id = p_merchant FOR UPDATE;
    at := clock_timestamp();
    SELECT * INTO c FROM credentials WHERE merchant_id = p_merchant AND id = p_credential;
    SELECT * INTO r FROM credential_rotations WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    SELECT * INTO new_row FROM credential_versions
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version AND state = 'pending';
    IF r.state IS DISTINCT FROM 'pending' OR c.state = 'deleted' OR new_row.version IS NULL THEN
      RETURN CASE WHEN r.state = 'pending' THEN 'missing' ELSE coalesce(r.state, 'missing') END;
    END IF;
    IF c.account_id IS DISTINCT FROM account AND c.account_id IS NOT NULL
       AND (account IS NULL OR c.approved_account_id IS DISTINCT FROM account OR c.approved_until <= at) THEN
      RETURN 'account';
    END IF;
    ends := at + make_interval(secs => (p_rules->>'overlapSeconds')::double precision);
    PERFORM audit_append(p_merchant, p_actor, 'credential.rotated', 'credential/' || p_credential, 'allowed', p_request_id,
      jsonb_build_object('version', p_version, 'previous', r.replaces, 'accountId', account, 'keyHint', new_row.key_hint,
        'overlapSeconds', p_rules->'overlapSeconds')::text);
    UPDATE credential_versions SET state = 'previous', overlap_until = ends, account_id = c.account_id, principal_arn = c.principal_arn, key_hint = c.key_hint
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = r.replaces AND state = 'current';
    UPDATE credential_versions SET state = 'current', account_id = account, principal_arn = p_found->>'arn'
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    UPDATE credentials SET current_version = p_version, account_id = account, principal_arn = p_found->>'arn', key_hint = new_row.key_hint,
        approved_account_id = NULL, approved_until = NULL,
        tested_at = at, test_result = 'ok'
      WHERE merchant_id = p_merchant AND id = p_credential;
    UPDATE credential_rotations SET state = 'overlap', promoted_at = at, overlap_until = ends, changed_at = at, tries = 0,
        warnings = ARRAY(SELECT jsonb_array_elements_text(p_found->'warnings')),
        due_at = at + make_interval(secs => (p_rules->>'leaseSeconds')::double precision)
      WHERE merchant_id = p_merchant AND credential_id = p_credential AND version = p_version;
    RETURN 'promoted';
  END
  $$;
