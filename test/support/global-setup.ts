import { createDatabase, startEmbeddedPostgres } from './postgres.ts';
import type { Cluster } from './postgres.ts';
import { transpile } from './transpiled.ts';

declare global {
  var testCluster: Cluster | undefined;
}

/**
 * Starts one Postgres for the whole run, or takes the one that DATABASE_URL names (a login that may create databases), and migrates the
 * template that every test file copies. Workers find it through TEST_ADMIN_URL and TEST_TEMPLATE, and what processes of tests run through
 * TEST_TRANSPILED.
 */
export default async function setup(): Promise<void> {
  const given = process.env['DATABASE_URL'];
  const cluster =
    given === undefined || given === ''
      ? await startEmbeddedPostgres()
      : { adminUrl: given, stop: () => Promise.resolve() };
  const template = `mb_template_${String(process.pid)}`;
  await createDatabase(cluster.adminUrl, template);
  process.env['TEST_TRANSPILED'] = await transpile();
  globalThis.testCluster = cluster;
  process.env['TEST_ADMIN_URL'] = cluster.adminUrl;
  process.env['TEST_TEMPLATE'] = template;
}
