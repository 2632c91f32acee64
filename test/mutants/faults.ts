import type { Mutant } from '../../scripts/mutants/mutant.ts';

const CACHE = 'src/credentials/opened-cache.ts';
const CACHE_TEST = 'test/unit/opened-cache.test.ts';
const MIGRATION = 'prisma/migrations/20261121196000_faults/migration.sql';
const MATRIX = 'test/faults/matrix.test.ts';
const LEFTOVERS = 'test/server/leftovers.test.ts';
const ENVELOPE = 'test/unit/envelope.test.ts';
const REACH = 'test/unit/reach.test.ts';

/** What holds while something is down, altered, or left behind. */
export const FAULTS: readonly Mutant[] = [
  {
    name: 'Who dies behind the deletion of a credential leaves its ciphertext to the sweep.',
    file: 'src/credentials/credential-store.ts',
    find: 'await leaveSecrets(tx, secretNames);',
    replace: 'await leaveSecrets(tx, []);',
    test: LEFTOVERS,
  },
  {
    name: 'Who dies behind the closing of a merchant leaves its ciphertexts to the sweep.',
    file: 'prisma/migrations/20261121203000_unsent/migration.sql',
    find: 'PERFORM secrets_orphaned(',
    replace: 'PERFORM cardinality(',
    test: LEFTOVERS,
  },
  {
    name: 'A stale credential is used only after its use was recorded.',
    file: CACHE,
    find: '    await opening.recordStaleUse();\n',
    replace: '    void opening.recordStaleUse().catch(() => undefined);\n',
    test: CACHE_TEST,
  },
  {
    name: 'Only silence lets a stale credential be used, never a refusal.',
    file: CACHE,
    find: 'if (!(error instanceof VaultSilence)) throw error;',
    replace: '',
    test: CACHE_TEST,
  },
  {
    name: 'A KMS key that is refused ends every open credential of the process.',
    file: CACHE,
    find: "if (error.of === 'key') this.#evict('');",
    replace: "if (error.of === 'key') this.evict(place.merchantId, place.credentialId);",
    test: CACHE_TEST,
  },
  {
    name: 'A stale credential ends after its time.',
    file: 'src/credentials/stale-copies.ts',
    find: 'this.#options.clock.now() < copy.until) return copy;',
    replace: 'this.#options.clock.now() < Infinity) return copy;',
    test: CACHE_TEST,
  },
  {
    name: 'A Postgres that never answers holds no request.',
    file: 'src/persistence/patient-client.ts',
    find: '        hangUp(this);\n',
    replace: '',
    test: MATRIX,
  },
  {
    name: 'A silent KMS or Secrets Manager holds no request.',
    file: 'src/credentials/sdk-options-aws.ts',
    // Both of them: either one ends a request that gets no answer at all.
    find: /requestTimeout: target\.requestTimeoutMs,([^]*?)socketTimeout: target\.requestTimeoutMs,/,
    replace: 'requestTimeout: 8_000,$1socketTimeout: 8_000,',
    test: MATRIX,
  },
  {
    name: 'A commit after the sweep began is refused.',
    file: MIGRATION,
    find: 'AND secret_name = p_name AND swept_at IS NULL;',
    replace: 'AND secret_name = p_name;',
    test: LEFTOVERS,
  },
  {
    name: 'A left-over secret is announced before it exists.',
    file: 'src/credentials/vault-aws.ts',
    find: /await announce\(secretName\);\s+return \{ secretName, secretVersionId: (await this\.#create\([^)]*\)) \};/,
    replace:
      'const secretVersionId = $1; await announce(secretName); return { secretName, secretVersionId };',
    test: LEFTOVERS,
  },
  {
    name: 'The secret of a credential is never swept.',
    file: MIGRATION,
    find: "v.secret_name = due.secret_name AND v.state <> 'destroyed');",
    replace: "v.secret_name = due.secret_name AND v.state = 'nothing');",
    test: LEFTOVERS,
  },
  {
    name: 'An envelope has one length.',
    file: 'src/credentials/envelope.ts',
    find: 'if (envelope.length !== FIXED_BYTES + length)',
    replace: 'if (envelope.length < FIXED_BYTES + length)',
    test: ENVELOPE,
  },
  {
    name: 'No name of AWS leads into the network of the service.',
    file: 'src/domain/address.ts',
    find: 'const stray = error === null && !addresses.every(',
    replace: 'const stray = error === null && !addresses.some(',
    test: REACH,
  },
  {
    name: 'The metadata of a machine is never called, VPC endpoints or not.',
    file: 'src/domain/address.ts',
    find: "  ['192.168.0.0', 16],\n] as const)",
    replace: "  ['192.168.0.0', 16],\n  ['169.254.0.0', 16],\n] as const)",
    test: REACH,
  },
  {
    name: 'Nobody can look into a process that has started.',
    file: 'src/config/ambient.ts',
    find: "if (name === 'NODE_OPTIONS') return LOOKING_IN.test(value);",
    replace: '',
    test: 'test/faults/ambient.test.ts',
    testName: 'NODE_OPTIONS',
  },
];
