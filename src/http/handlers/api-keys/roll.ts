import { z } from 'zod';
import { ServiceError } from '../../../domain/errors.ts';
import { parseApiKeyId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';
import { assertMayHandOn } from './schema.ts';

const body = z.strictObject({
  overlapHours: z.int().min(0, 'must be 0 to 168').max(168, 'must be 0 to 168').default(24),
});

export const rollApiKey = merchantEndpoint<z.output<typeof body>>({
  summary:
    'Make the successor of an API key, with its name, scopes and life; the old key ends after the overlap',
  body,
  reply: {
    status: 201,
    description: 'The token of the successor is shown this one time. A key is rolled once',
    schema: z.object({
      id: z.string(),
      token: z.string(),
      name: z.string(),
      scopes: z.array(z.string()),
      expiresAt: z.string(),
      replaces: z.object({ id: z.string(), expiresAt: z.string() }),
    }),
  },
  handle: async ({ services, actor, principal, merchant, params, body: { overlapHours } }) => {
    const keyId = parseApiKeyId(params['kid'] ?? '');
    const scopes = keyId && (await services.apiKeyStore.scopesOf(merchant.id, keyId));
    if (keyId === undefined || scopes === undefined)
      throw new ServiceError(
        'api_key.not_found',
        'This merchant has no such API key. GET …/api-keys lists them.',
      );
    assertMayHandOn(principal, scopes);
    return { status: 201, body: await services.apiKeys.roll(actor, merchant.id, keyId, overlapHours) };
  },
});
