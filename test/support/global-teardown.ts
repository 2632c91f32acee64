import { dropDatabase } from './postgres.ts';

export default async function teardown(): Promise<void> {
  const cluster = globalThis.testCluster;
  const template = process.env['TEST_TEMPLATE'];
  if (cluster === undefined) return;
  if (template !== undefined) await dropDatabase(cluster.adminUrl, template);
  await cluster.stop();
}
