import { userInfo } from 'node:os';
import pg from 'pg';
import { newOperatorKey } from '../../src/auth/api-keys.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import type { AuditAction } from '../../src/domain/audit.ts';
import { SYSTEM_CHAIN } from '../../src/domain/audit.ts';
import type { OperatorScope } from '../../src/domain/principal.ts';
import type { Secret } from '../../src/domain/secret.ts';
import { Failure, nameOf, shown } from './run.ts';

export interface OperatorKeyOrder {
  adminUrl: string;
  pepper: Secret<Buffer>;
  /** As TOKEN_PEPPER_VERSION of the service; 1 unless the pepper was ever changed. */
  pepperVersion?: number;
  name: string;
  scopes: readonly OperatorScope[];
  environment: 'live' | 'test';
  expiresInDays: number;
}

/** A key as it may be shown: no hash. */
export interface ListedKey {
  id: string;
  name: string;
  environment: string;
  scopes: string[];
  state: 'active' | 'expired' | 'revoked';
  createdAt: string;
  expiresAt: string;
  revokedAt: string | null;
}

/**
 * Makes an operator's key: the row and its audit event in one transaction. Needs an administrator's login: the service itself cannot.
 * @throws Failure; nothing was written then.
 */
export async function createOperatorKey(
  order: OperatorKeyOrder,
): Promise<{ id: string; token: string; expiresAt: string }> {
  const hasher = new TokenHasher([{ version: order.pepperVersion ?? 1, key: order.pepper }]);
  const { token, row } = newOperatorKey(hasher, { ...order, now: Date.now() });
  await inTransaction(order.adminUrl, async (client) => {
    await client.query(
      `INSERT INTO operator_keys (id, name, environment, secret_hash, pepper_version, scopes, expires_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7)`,
      [row.id, row.name, row.environment, row.secretHash, row.pepperVersion, row.scopes, row.expiresAt],
    );
    await audit(client, 'token.created', row.id, {
      scopes: row.scopes,
      expiresAt: row.expiresAt.toISOString(),
    });
  });
  return { id: row.id, token, expiresAt: row.expiresAt.toISOString() };
}

/** All keys, oldest first. @throws Failure */
export function listOperatorKeys(adminUrl: string): Promise<ListedKey[]> {
  return inTransaction(adminUrl, async (client) => {
    const { rows } = await client.query<ListedRow>(
      `SELECT id, name, environment, scopes, created_at, expires_at, revoked_at, expires_at <= now() AS expired
       FROM operator_keys ORDER BY created_at, id`,
    );
    return rows.map((row) => ({
      id: row.id,
      name: row.name,
      environment: row.environment,
      scopes: row.scopes,
      state: row.revoked_at !== null ? 'revoked' : row.expired ? 'expired' : 'active',
      createdAt: row.created_at.toISOString(),
      expiresAt: row.expires_at.toISOString(),
      revokedAt: row.revoked_at?.toISOString() ?? null,
    }));
  });
}

/** Revokes a key; one that was revoked before stays so. @throws Failure, also when there is no such key. */
export function revokeOperatorKey(adminUrl: string, id: string): Promise<void> {
  return inTransaction(adminUrl, async (client) => {
    // The head first, as everywhere: what an operator does locks it and then the key.
    await client.query('SELECT 1 FROM audit_heads WHERE merchant_id = $1 FOR UPDATE', [SYSTEM_CHAIN]);
    const { rows } = await client.query<{ revoked_at: Date | null }>(
      'SELECT revoked_at FROM operator_keys WHERE id = $1 FOR UPDATE',
      [id],
    );
    if (rows[0] === undefined)
      throw new Failure(`There is no operator key ${id}. --list shows those there are.`);
    if (rows[0].revoked_at !== null) return;
    await client.query('UPDATE operator_keys SET revoked_at = clock_timestamp() WHERE id = $1', [id]);
    await audit(client, 'token.revoked', id, {});
  });
}

interface ListedRow {
  id: string;
  name: string;
  environment: string;
  scopes: string[];
  created_at: Date;
  expires_at: Date;
  revoked_at: Date | null;
  expired: boolean;
}

async function audit(client: pg.Client, action: AuditAction, id: string, body: object): Promise<void> {
  await client.query(`SELECT audit_append($1, $2, $3, $4, 'allowed', 'cli', $5)`, [
    SYSTEM_CHAIN,
    `cli:${userName()}`,
    action,
    `operator-key/${id}`,
    JSON.stringify(body),
  ]);
}

async function inTransaction<T>(adminUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: adminUrl, connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
    await client.query('BEGIN');
    try {
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    }
  } catch (error) {
    throw error instanceof Failure ? error : databaseFailure(error);
  } finally {
    await client.end().catch(() => undefined);
  }
}

function databaseFailure(error: unknown): Failure {
  const code = nameOf(error);
  // undefined_table, undefined_function
  const why =
    code === '42P01' || code === '42883'
      ? 'The database of DATABASE_ADMIN_URL is not migrated: npm run migrate does it.'
      : error instanceof pg.DatabaseError
        ? `The database of DATABASE_ADMIN_URL refused (${code}): ${shown(error.message)}`
        : `The database of DATABASE_ADMIN_URL cannot be reached (${code}).`;
  return new Failure(`No key was made or changed. ${why}`);
}

/** For the audit trail: who ran this. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return 'unknown';
  }
}
