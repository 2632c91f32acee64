import { createOperatorKey } from '../../scripts/operator-key.ts';
import { mintToken } from '../../src/auth/token.ts';
import { Secret } from '../../src/domain/secret.ts';
import { AWS } from '../support/aws-keys.ts';
import { onServer } from '../support/postgres.ts';
import type { TestService } from '../support/service.ts';
import type { Stage } from './replay.ts';

const BEDROCK_API_KEY = `ABSK${'canary'.repeat(12)}`;

/** A stage on which onboarding works: a service, its database, and an AWS that knows merchant A. */
export async function newStage(service: TestService): Promise<Stage> {
  const { standIn, database, operatorToken, url } = service;
  standIn.addAccessKey(AWS.merchantA);
  standIn.addBedrockApiKey({ apiKey: BEDROCK_API_KEY, accountId: AWS.merchantA.accountId });
  const reader = await createOperatorKey({
    adminUrl: database.adminUrl,
    pepper: new Secret(Buffer.from(service.env['TOKEN_PEPPER'] ?? '', 'base64')),
    environment: 'test',
    name: 'may only read',
    scopes: ['ops:merchants:read'],
    expiresInDays: 1,
  });
  return {
    names: {
      URL: url,
      OPERATOR_TOKEN: operatorToken,
      READER_TOKEN: reader.token,
      UNKNOWN_TOKEN: mintToken('operator', 'test').text,
      KEY_ID: AWS.merchantA.accessKeyId,
      SECRET: AWS.merchantA.secretAccessKey,
      WRONG_SECRET: 'CANARYkey7MDENGbPxRfiCYwJalrXUtnFEMI0123',
      BEDROCK_API_KEY,
    },
    secrets: ['OPERATOR_TOKEN', 'READER_TOKEN', 'UNKNOWN_TOKEN', 'SECRET', 'WRONG_SECRET', 'BEDROCK_API_KEY'],
    countRows: () => countRows(database.adminUrl),
  };
}

/** What onboarding writes. Refusals of operators are recorded too, in the operators' own chain, which is not counted. */
export function countRows(adminUrl: string): Promise<unknown> {
  return onServer(adminUrl, async (client) => {
    const { rows } = await client.query<Record<string, string>>(`SELECT
      (SELECT count(*) FROM merchants) AS merchants, (SELECT count(*) FROM api_keys) AS api_keys,
      (SELECT count(*) FROM credentials) AS credentials, (SELECT count(*) FROM credential_versions) AS versions,
      (SELECT count(*) FROM audit_events WHERE merchant_id <> '~system') AS audit_events,
      (SELECT count(*) FROM audit_heads WHERE merchant_id <> '~system') AS audit_heads`);
    return rows[0];
  });
}

/** Ciphertexts that are in Secrets Manager now: what was created less what was deleted. */
export function secretsKept({ standIn }: TestService): number {
  const done = (operation: string) =>
    standIn.journal.filter((entry) => entry.operation === operation && entry.status === 200).length;
  return done('CreateSecret') - done('DeleteSecret');
}
