import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MIGRATION = 'prisma/migrations/20261121192000_rotation/migration.sql';
const ORDER = 'prisma/migrations/20261121202000_rotation_order/migration.sql';
const ROTATION = 'test/server/rotation.test.ts';

/** Another key in the place of a stored one, under running calls. */
export const ROTATING: readonly Mutant[] = [
  {
    name: 'A previous version is admitted while its overlap lasts, and not a moment longer.',
    file: MIGRATION,
    find: "(w.state = 'previous' AND w.overlap_until > at)",
    replace: "w.state = 'previous'",
    test: ROTATION,
  },
  {
    name: 'A version that waits for its test signs nothing.',
    file: MIGRATION,
    find: "AND (w.state = 'current' OR (w.state = 'previous'",
    replace: "AND (w.state IN ('current', 'pending') OR (w.state = 'previous'",
    test: ROTATION,
  },
  {
    name: 'A rotation to another account needs an approval in the statement that promotes.',
    file: MIGRATION,
    find: 'OR c.approved_until <= at) THEN',
    replace: ') THEN',
    test: ROTATION,
  },
  {
    name: 'What is retired is shredded.',
    file: ORDER,
    find: "AND version = r.replaces AND state = 'previous';",
    replace: "AND version = r.replaces AND state = 'never';",
    test: ROTATION,
  },
  {
    name: 'A call that AWS refused for its key is made again with the other version.',
    file: 'src/gateway/gateway.ts',
    find: 'return (await this.#withOtherVersion(paid, admitted, refused, goesOn)) ?? refused;',
    replace: 'return refused;',
    test: ROTATION,
  },
  {
    name: 'Only a refusal of the key is tried again.',
    file: 'src/gateway/gateway.ts',
    find: "if (awsError?.credentialBroken !== true || awsError.execution !== 'refused') return undefined;",
    replace: 'if (awsError === undefined) return undefined;',
    test: ROTATION,
  },
  {
    name: 'A test that failed leaves nothing pending.',
    file: 'src/credentials/rotation.ts',
    find: 'await this.#giveUp(actor, begun, error);',
    replace: '',
    test: ROTATION,
  },
  {
    name: 'A rotation whose process died is given up after its limit.',
    file: 'src/credentials/rotation-worker.ts',
    find: 'if (!final && !due.overdue) throw error;',
    replace: 'if (!final) throw error;',
    test: ROTATION,
  },
  {
    name: 'The new version is written with the pending label.',
    file: 'src/credentials/vault-aws.ts',
    find: "VersionStages: ['AWSPENDING'],",
    replace: '',
    test: ROTATION,
  },
  {
    name: 'Other processes are told of a rotation.',
    file: 'src/credentials/rotation-worker.ts',
    find: 'vault.forgetCurrent(change.merchantId, change.credentialId);',
    replace: '',
    test: ROTATION,
  },
  {
    name: 'A second key at IAM that is not ours is left alone.',
    file: 'src/credentials/rotation-keys.ts',
    find: "if (name === undefined || key.state === 'active') throw noRoom(key);",
    replace: '',
    test: ROTATION,
  },
];
