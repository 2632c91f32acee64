import type { Mutant } from '../../scripts/mutants/mutant.ts';

const SQL = 'prisma/migrations/20261121193000_checkpoints/migration.sql';
const CHECKPOINTS = 'test/server/checkpoints.test.ts';
const EXPORT = 'test/server/audit-export.test.ts';
const OFFLINE = 'test/unit/verify-export.test.ts';

/** What is signed of the audit trail, and what that shows. */
export const CHECKPOINTING: readonly Mutant[] = [
  {
    name: 'A checkpoint names the one before it.',
    file: SQL,
    find: "encode(coalesce(last.hash, decode(repeat('00', 32), 'hex')), 'hex'));",
    replace: "repeat('00', 32));",
    test: CHECKPOINTS,
    testName: 'covers the heads of all chains',
  },
  {
    name: 'Leaves are salted anew for each checkpoint, so that nobody sees who was idle.',
    file: SQL,
    find: 'made.blind := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));',
    replace: "made.blind := sha256('blind');",
    test: CHECKPOINTS,
    testName: 'shows a neighbour that did nothing',
  },
  {
    name: 'The tree is that of RFC 9162, whatever the number of chains.',
    file: SQL,
    find: 'ELSE substring(nodes, 64 * i + 1, 32) END',
    replace: "ELSE sha256('\\x01'::bytea || substring(nodes, 64 * i + 1, 32)) END",
    test: CHECKPOINTS,
    testName: 'is the tree of RFC 9162',
  },
  {
    name: 'Of many replicas one makes the checkpoint: who is at it has a lease.',
    file: SQL,
    find: 'WHERE c.number = last.number AND c.sign_after <= clock_timestamp();',
    replace: 'WHERE c.number = last.number;',
    test: CHECKPOINTS,
    testName: 'for the length of its lease',
  },
  {
    name: 'A chain that went back is told.',
    file: SQL,
    find: 'WHERE n.seq <= n.before)',
    replace: 'WHERE n.seq < 0)',
    test: CHECKPOINTS,
    testName: 'is an alarm',
  },
  {
    name: 'Copies are locked in compliance mode: not even their owner removes one.',
    file: 'src/audit/checkpoint-bucket-aws.ts',
    find: "ObjectLockMode: 'COMPLIANCE'",
    replace: "ObjectLockMode: 'GOVERNANCE'",
    test: CHECKPOINTS,
    testName: 'covers the heads of all chains',
  },
  {
    name: 'A copy that could not be made is made later.',
    file: 'src/audit/checkpointer.ts',
    find: '          // The others would fail alike; their lease ends.\n          return;',
    replace: '',
    test: CHECKPOINTS,
    testName: 'S3: checkpoints',
  },
  {
    name: 'The signature covers which key signed.',
    file: 'src/audit/checkpoint.ts',
    find: '`mbk-checkpoint-v1\\n${keyId}\\n${body}`',
    replace: '`mbk-checkpoint-v1\\n${body}${keyId.slice(0, 0)}`',
    test: CHECKPOINTS,
    testName: 'is believed only when signed',
  },
  {
    name: 'A public key that an export brings along is not believed.',
    file: 'src/audit/checkpoint.ts',
    find: 'keys.find((one) => toPem(one) === checkpoint.publicKey)',
    replace: '[readPublicKey(checkpoint.publicKey), ...keys][0]',
    test: OFFLINE,
  },
  {
    name: 'The offline verifier finds a chain that was hashed anew.',
    file: 'src/audit/verify-export.ts',
    find: 'if (signed !== hash)',
    replace: 'if (signed.length !== hash.length)',
    test: OFFLINE,
  },
  {
    name: 'The offline verifier finds a cut tail.',
    file: 'src/audit/verify-export.ts',
    find: 'if (missing !== undefined)',
    replace: 'if (missing === 0)',
    test: OFFLINE,
  },
  {
    name: 'The offline verifier accepts no event that nobody signed.',
    file: 'src/audit/verify-export.ts',
    find: 'if (fault !== undefined || checkpoint.leaf.seq >= last) return fault;',
    replace: 'if (fault !== undefined || checkpoint.leaf.seq >= 0) return fault;',
    test: OFFLINE,
    testName: 'names the first bad event',
  },
  {
    name: 'Every line of an export must be as it was written, to the byte.',
    file: 'src/audit/verify-export.ts',
    find: 'if (!isEvent(event) || eventLine(event) !== text)',
    replace: 'if (!isEvent(event))',
    test: OFFLINE,
  },
  {
    name: 'Who reads the audit trail is in it, or does not read it.',
    file: 'src/audit/checkpoint-store.ts',
    find: 'const recorded = await appendAudit(tx, chain, entry);',
    replace: 'const recorded = entry.actor === chain ? 0 : 1_000_000;',
    test: EXPORT,
  },
  {
    name: 'The verifier of the database finds a chain that was rewritten with its head.',
    file: 'scripts/cli/verify-chains.ts',
    find: 'if (leaf.hash !== hash)',
    replace: 'if (leaf.hash.length !== hash.length)',
    test: EXPORT,
    testName: 'rewritten to its end',
  },
  {
    name: 'The verifier of the database finds that leaves are gone.',
    file: 'src/audit/verify-checkpoints.ts',
    find: "if (rootOf(leaves)?.toString('hex') !== root)",
    replace: "if (rootOf(leaves)?.toString('hex').length === 1)",
    test: EXPORT,
    testName: 'a leaf was removed',
  },
  {
    name: 'A service without a key to sign with says so when it starts.',
    file: 'src/service.ts',
    find: "this.logger.warn('audit checkpoints are off: AUDIT_KMS_KEY_ID is not set');",
    replace: '{}',
    test: 'test/server/audit-export.test.ts',
  },
  {
    name: 'A script that builds the service says nothing of how the service signs.',
    file: 'src/container/audit.ts',
    find: 'if (keyId === undefined) return',
    replace:
      "if (keyId === undefined) logger.warn('audit checkpoints are off');\n  if (keyId === undefined) return",
    test: 'test/cli/commands.test.ts',
  },
];
