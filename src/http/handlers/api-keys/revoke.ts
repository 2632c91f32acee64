import { ServiceError } from '../../../domain/errors.ts';
import { parseApiKeyId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';

export const revokeApiKey = merchantEndpoint({
  summary: 'Revoke an API key. When this is answered no call can start with it, on any replica',
  reply: { status: 204, description: 'Revoked, also if it was before' },
  handle: async ({ services, actor, merchant, params }) => {
    const keyId = parseApiKeyId(params['kid'] ?? '');
    const revoked = keyId !== undefined && (await services.apiKeyStore.revoke(actor, merchant.id, keyId));
    if (!revoked)
      throw new ServiceError(
        'api_key.not_found',
        'This merchant has no such API key. GET …/api-keys lists them.',
      );
    return { status: 204 };
  },
});
