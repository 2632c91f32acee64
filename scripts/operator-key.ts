import pg from 'pg';
import { newOperatorKey } from '../src/auth/api-keys.ts';
import { TokenHasher } from '../src/auth/token-hash.ts';
import type { OperatorScope } from '../src/domain/principal.ts';
import type { Secret } from '../src/domain/secret.ts';

export interface OperatorKeyOrder {
  adminUrl: string;
  pepper: Secret<Buffer>;
  name: string;
  scopes: readonly OperatorScope[];
  environment: 'live' | 'test';
  expiresInDays: number;
}

/** Makes an operator's key. Needs an administrator's login: the service itself cannot. */
export async function createOperatorKey(
  order: OperatorKeyOrder,
): Promise<{ id: string; token: string; expiresAt: string }> {
  const { token, row } = newOperatorKey(new TokenHasher([{ version: 1, key: order.pepper }]), {
    ...order,
    now: Date.now(),
  });
  const client = new pg.Client({ connectionString: order.adminUrl });
  await client.connect();
  try {
    await client.query('BEGIN');
    await client.query(
      'INSERT INTO operator_keys (id, name, environment, secret_hash, pepper_version, scopes, expires_at) VALUES ($1,$2,$3,$4,$5,$6,$7)',
      [row.id, row.name, row.environment, row.secretHash, row.pepperVersion, row.scopes, row.expiresAt],
    );
    await client.query(`SELECT audit_append('~system', 'cli', 'token.created', $1, 'allowed', 'cli', $2)`, [
      `operator-key/${row.id}`,
      JSON.stringify({ scopes: row.scopes }),
    ]);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
  return { id: row.id, token, expiresAt: row.expiresAt.toISOString() };
}
