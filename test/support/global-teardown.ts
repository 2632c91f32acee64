import { dropDatabase } from './postgres.ts';
import { removeTranspiled } from './transpiled.ts';

export default async function teardown(): Promise<void> {
  const transpiled = process.env['TEST_TRANSPILED'];
  if (transpiled !== undefined) await removeTranspiled(transpiled);
  const cluster = globalThis.testCluster;
  const template = process.env['TEST_TEMPLATE'];
  if (cluster === undefined) return;
  if (template !== undefined) await dropDatabase(cluster.adminUrl, template);
  await cluster.stop();
}
