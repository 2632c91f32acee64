import { randomBytes } from 'node:crypto';
import { createDatabase, dropDatabase } from './postgres.ts';
import type { TestDatabase } from './postgres.ts';

/** A fresh, migrated database of this test file, dropped at the end of its scope. */
export async function newTestDatabase(): Promise<TestDatabase & AsyncDisposable> {
  const adminUrl = process.env['TEST_ADMIN_URL'];
  const template = process.env['TEST_TEMPLATE'];
  if (adminUrl === undefined || template === undefined) throw new Error('global-setup.ts has not run');
  const database = await createDatabase(adminUrl, `mb_test_${randomBytes(6).toString('hex')}`, template);
  return { ...database, [Symbol.asyncDispose]: () => dropDatabase(adminUrl, database.name) };
}
