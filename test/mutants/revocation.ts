import type { Mutant } from '../../scripts/mutants/mutant.ts';

const WATCH = 'src/gateway/watch.ts';
const MIGRATION = 'prisma/migrations/20261121198000_revocation/migration.sql';
/** Where the function that admits calls is now. */
const ADMISSION = 'prisma/migrations/20261121192000_rotation/migration.sql';
const RACES = 'test/server/revocation-races.test.ts';
const STREAMS_END = 'test/server/revocation-streams.test.ts';
const ACTORS = 'prisma/migrations/20261121206000_actors/migration.sql';
const SLOW_BODY = 'test/server/revocation-slow-body.test.ts';
const RULES = 'test/server/revocation.test.ts';

/** What was taken away is not used, by what begins and by what runs. */
export const REVOCATION: readonly Mutant[] = [
  {
    name: 'Admission asks whether the key is revoked, and does not believe what a process remembers.',
    file: ADMISSION,
    find: 'AND k.id = i.api_key_id AND k.revoked_at IS NULL',
    replace: 'AND k.id = i.api_key_id',
    test: RACES,
  },
  {
    name: 'Admission asks whether the credential is active.',
    file: ADMISSION,
    find: "AND c.id = i.credential_id AND c.state = 'active'",
    replace: 'AND c.id = i.credential_id',
    test: RACES,
  },
  {
    name: 'A stream ends when its API key is revoked.',
    file: MIGRATION,
    find: 'AND k.id = r.api_key_id AND k.revoked_at IS NULL',
    replace: 'AND k.id = r.api_key_id',
    test: STREAMS_END,
  },
  {
    name: 'A stream ends when its credential is frozen.',
    file: MIGRATION,
    find: "AND c.id = r.credential_id AND c.state = 'active'",
    replace: "AND c.id = r.credential_id AND c.state <> 'deleted'",
    test: STREAMS_END,
  },
  {
    name: 'A stream that was ended says so with an error of its own.',
    file: 'src/gateway/relay-stream.ts',
    find: "exceptionFrame('accessDeniedException', revoked.detail",
    replace: "exceptionFrame('modelStreamErrorException', revoked.detail",
    test: STREAMS_END,
  },
  {
    name: 'A stream ends when the JWT of its caller runs out, also while Postgres is away.',
    file: WATCH,
    find: '?? Infinity) <= now',
    replace: '?? Infinity) <= now - 3_600_000',
    test: 'test/unit/watch.test.ts',
  },
  {
    name: 'A look that hangs is given up for another.',
    file: 'src/memory/within.ts',
    find: 'return await Promise.race([work, end]);',
    replace: 'return await work;',
    test: 'test/unit/watch.test.ts',
  },
  {
    name: 'While Postgres does not answer, it is asked again.',
    file: WATCH,
    find: 'await pause(retryMs);',
    replace: 'break;',
    test: 'test/unit/watch.test.ts',
  },
  {
    name: 'Thawing makes nothing usable that was not frozen.',
    file: 'prisma/migrations/20261121200000_role_states/migration.sql',
    find: "IF before = (CASE WHEN p_frozen THEN 'active' ELSE 'frozen' END) THEN",
    replace: "IF before <> 'deleted' THEN",
    test: RULES,
  },
  {
    name: 'Closing a merchant destroys its data keys.',
    file: 'prisma/migrations/20261121203000_unsent/migration.sql',
    find: "UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()\n        WHERE merchant_id = p_merchant AND",
    replace:
      "UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()\n        WHERE merchant_id = p_merchant AND false AND",
    test: RULES,
  },
  {
    name: 'A merchant that was closed is not opened again.',
    file: MIGRATION,
    find: "WHEN (OLD.status = 'closed' AND NEW.status <> 'closed')",
    replace: "WHEN (OLD.status = 'closed' AND NEW.status = 'none')",
    test: RULES,
  },
  {
    name: 'Closing needs the id of the merchant once more.',
    file: 'src/http/handlers/ops/close-merchant.ts',
    find: 'if (confirmed !== merchantId)',
    replace: "if (confirmed === '')",
    test: RULES,
  },
  {
    name: 'A call of a merchant that is closed meanwhile is told of the merchant, and not of its credential.',
    file: 'src/gateway/admission.ts',
    find: "if (merchant?.status !== 'active') throw refusalOf({ verdict: 'merchant' });",
    replace: "if (merchant?.status !== 'active') throw error;",
    test: RACES,
  },
  {
    name: 'What a key does is done while it holds, and not when it was let in.',
    file: ACTORS,
    find: "IF p_outcome = 'allowed' THEN",
    replace: 'IF false THEN',
    test: SLOW_BODY,
    testName: 'of an API key that was revoked',
  },
  {
    name: 'What somebody of a merchant does is done while the merchant is active.',
    file: ACTORS,
    find: "m.status <> 'active'",
    replace: "m.status = 'closed'",
    test: SLOW_BODY,
    testName: 'of a merchant that was suspended',
  },
  {
    name: "What an operator does waits for a revocation of the operator's key that is under way.",
    file: ACTORS,
    find: 'k.id = key_id FOR SHARE;',
    replace: 'k.id = key_id;',
    test: SLOW_BODY,
    testName: "of an operator's key: nothing is made",
  },
  {
    name: 'An operator decides a call while the key holds.',
    file: ACTORS,
    find: 'PERFORM actor_must_hold(p_merchant, p_actor);\n    SELECT c.state',
    replace: 'SELECT c.state',
    test: SLOW_BODY,
    testName: "of an operator's key that was revoked",
  },
  {
    name: 'A key may revoke itself.',
    file: ACTORS,
    find: "      PERFORM audit_append(p_merchant, p_actor, 'token.revoked', 'api-key/' || p_id, 'allowed', p_request_id, '{}');\n      UPDATE api_keys SET revoked_at = clock_timestamp() WHERE merchant_id = p_merchant AND id = p_id;\n",
    replace:
      "      UPDATE api_keys SET revoked_at = clock_timestamp() WHERE merchant_id = p_merchant AND id = p_id;\n      PERFORM audit_append(p_merchant, p_actor, 'token.revoked', 'api-key/' || p_id, 'allowed', p_request_id, '{}');\n",
    test: SLOW_BODY,
    testName: 'revokes itself',
  },
  {
    name: 'A JWT that ran out while a JSON body was on the way is not taken.',
    file: 'src/http/mount.ts',
    find: 'await readParts(endpoint, req, memory);\n  assertUnexpired(principal, services.clock);',
    replace: 'await readParts(endpoint, req, memory);',
    test: SLOW_BODY,
    testName: 'of a JWT that ran out',
  },
  {
    name: 'A JWT that ran out while the body of a call was on the way is not taken.',
    file: 'src/http/mount.ts',
    find: '    assertUnexpired(principal, services.clock);\n    await handle(',
    replace: '    await handle(',
    test: SLOW_BODY,
    testName: 'of a JWT that ran out',
  },
];
