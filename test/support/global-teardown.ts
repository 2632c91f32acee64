import { rm } from 'node:fs/promises';
import { dropDatabase } from './postgres.ts';

export default async function teardown(): Promise<void> {
  const transpiled = process.env['TEST_TRANSPILED'];
  if (transpiled !== undefined) await rm(transpiled, { recursive: true, force: true });
  const cluster = globalThis.testCluster;
  const template = process.env['TEST_TEMPLATE'];
  if (cluster === undefined) return;
  if (template !== undefined) await dropDatabase(cluster.adminUrl, template);
  await cluster.stop();
}
