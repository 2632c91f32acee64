import type { Mutant } from '../../scripts/mutants/mutant.ts';

const KEYS_SQL = 'prisma/migrations/20261121197000_keys/migration.sql';
const TRIES_SQL = 'prisma/migrations/20261121205000_rotation_tries/migration.sql';
const UNSENT_SQL = 'prisma/migrations/20261121203000_unsent/migration.sql';
const IAM = 'src/credentials/iam-keys-aws.ts';
const IAM_TEST = 'test/contract/iam-keys.test.ts';
const DATA_KEYS_TEST = 'test/contract/data-keys.test.ts';
const REHASH_TEST = 'test/unit/token-rehash.test.ts';
const ROLL_TEST = 'test/server/api-key-roll.test.ts';
const ROTATION_TEST = 'test/server/rotation-due.test.ts';

/** Keys change while the service runs: its own, merchants' API keys, and the AWS keys of merchants' users. */
export const KEYS: readonly Mutant[] = [
  {
    name: 'An access key is never asked for twice: nobody would have the secret of the first.',
    file: IAM,
    find: 'maxAttempts: creates ? 1 : 2,',
    replace: 'maxAttempts: 2,',
    test: IAM_TEST,
  },
  {
    name: 'Temporary keys are not sent to IAM.',
    file: IAM,
    find: 'if (owner.accessKey.sessionToken !== undefined)',
    replace: 'if (owner.accessKey.sessionToken?.reveal() === "")',
    test: IAM_TEST,
  },
  {
    name: 'Whoever may have made a key whose secret is lost is told.',
    file: IAM,
    find: "return iamUnanswered(failure, action === 'iam:CreateAccessKey');",
    replace: 'return iamUnanswered(failure, false);',
    test: IAM_TEST,
  },
  {
    name: 'A credential that is deleted while its data key is under way stays deleted.',
    file: UNSENT_SQL,
    find: "AND version = one.version AND wrapped_key = decode(one.before, 'hex')",
    replace: "AND version = one.version AND coalesce(wrapped_key, '') IS NOT NULL",
    test: DATA_KEYS_TEST,
  },
  {
    name: 'The copy in Secrets Manager moves to the new KMS key, too.',
    file: 'src/credentials/data-keys-aws.ts',
    find: 'new UpdateSecretCommand({ SecretId: key.secretName, KmsKeyId: arn })',
    replace: 'new UpdateSecretCommand({ SecretId: key.secretName })',
    test: DATA_KEYS_TEST,
  },
  {
    name: 'That Secrets Manager encrypted a version anew is looked at, not taken for granted.',
    file: 'src/credentials/data-keys-aws.ts',
    find: 'if (!under.includes(arn)) throw',
    replace: 'if (under.length === 0) throw',
    test: DATA_KEYS_TEST,
  },
  {
    name: 'The move of data keys waits for no exchange and no deletion.',
    file: UNSENT_SQL,
    find: 'FOR UPDATE SKIP LOCKED;\n      CONTINUE',
    replace: 'FOR UPDATE;\n      CONTINUE',
    test: DATA_KEYS_TEST,
  },
  {
    name: 'A data key that cannot be moved keeps no other waiting.',
    file: 'src/credentials/data-keys.ts',
    find: 'keys = await store.take(arn, keys.at(-1), batch);',
    replace: 'if (reasons.length > 0) break;\n    keys = await store.take(arn, keys.at(-1), batch);',
    test: DATA_KEYS_TEST,
  },
  {
    name: 'The hash of a token never goes back to an older pepper.',
    file: KEYS_SQL,
    find: 'WHERE merchant_id = p_merchant AND id = p_id AND secret_hash = p_before AND pepper_version < p_version;',
    replace: 'WHERE merchant_id = p_merchant AND id = p_id AND secret_hash = p_before;',
    test: REHASH_TEST,
  },
  {
    name: 'Hashing tokens anew takes a few connections at most.',
    file: 'src/auth/token-rehash.ts',
    find: ' || this.#running.size >= parallel)',
    replace: ')',
    test: REHASH_TEST,
  },
  {
    name: 'A pepper to come is accepted before it is written.',
    file: 'src/container/callers.ts',
    find: '...(next ? [{ version: version + 1, key: next }] : []),',
    replace: '...(next ? [{ version: version + 2, key: next }] : []),',
    test: 'test/server/keys-rollout.test.ts',
  },
  {
    name: 'A key is rolled once, whoever asks at one time.',
    file: KEYS_SQL,
    find: 'IF old.rolled_to IS NOT NULL THEN',
    replace: 'IF false THEN',
    test: ROLL_TEST,
  },
  {
    name: 'A roll never lengthens the life of the old key.',
    file: KEYS_SQL,
    find: 'ends := least(old.expires_at, at + make_interval(hours => p_overlap_hours));',
    replace: 'ends := at + make_interval(hours => p_overlap_hours);',
    test: ROLL_TEST,
  },
  {
    name: 'Nobody gains a scope by rolling a key that has it.',
    file: 'src/http/handlers/api-keys/roll.ts',
    find: 'assertMayHandOn(principal, scopes);',
    replace: '',
    test: ROLL_TEST,
  },
  {
    name: 'Of all replicas one looks at the age of keys, once a day.',
    file: TRIES_SQL,
    find: "c.done_at <= at - interval '1 day' AND ",
    replace: '',
    test: ROTATION_TEST,
  },
  {
    name: 'A day of reminders is not done before its last part.',
    file: TRIES_SQL,
    find: 'DO UPDATE SET leased_until = excluded.leased_until',
    replace: 'DO UPDATE SET leased_until = excluded.leased_until, done_at = at',
    test: ROTATION_TEST,
    testName: 'was not ended',
  },
  {
    name: 'While one replica reminds no other begins.',
    file: TRIES_SQL,
    find: ' AND coalesce(c.leased_until <= at, true)',
    replace: '',
    test: ROTATION_TEST,
    testName: 'was not ended',
  },
  {
    name: 'An age is told once a version and threshold.',
    file: TRIES_SQL,
    find: 'AND a.scope_id = v.credential_id AND a.starts_at = v.created_at::timestamptz(3) AND a.threshold >= t.percent)',
    replace: 'AND a.scope_id = v.credential_id AND a.starts_at = v.created_at AND a.threshold > t.percent)',
    test: ROTATION_TEST,
  },
  {
    name: 'A new version has the key that Secrets Manager encrypts it under.',
    file: 'src/credentials/vault-aws.ts',
    find: 'return this.#seal(place, credential, next.kmsKeyArn, (',
    replace: 'return this.#seal(place, credential, this.#kmsKeyId, (',
    test: 'test/contract/data-keys.test.ts',
  },
];
