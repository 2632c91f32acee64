import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import type { OnboardingRequest } from '../../../gateway/onboarding.ts';
import { operatorEndpoint } from '../../route.ts';
import { name, region } from '../../schemas.ts';
import { newApiKey } from '../api-keys/schema.ts';
import { materialOf, newCredential } from '../credentials/schema.ts';

/** What onboarding takes; scripts/onboard.ts sends the same. */
export const createMerchantBody = z.strictObject({
  id: z
    .string()
    .regex(MERCHANT_ID_PATTERN, 'must be 2 to 63 characters of a-z, 0-9 and -, not beginning with -'),
  name,
  directAllowed: z.boolean().default(false),
  serviceDefaultsAllowed: z.boolean().default(false),
  regions: z.array(region).default([]),
  apiKey: newApiKey,
  credential: newCredential.optional(),
});

type CreateMerchantBody = z.output<typeof createMerchantBody>;

/** The request in the words of the rooms: secrets wrapped, the first credential the default unless said otherwise. */
export function toOnboardingRequest({
  apiKey,
  credential,
  ...merchant
}: CreateMerchantBody): OnboardingRequest {
  return {
    merchant: { ...merchant, id: merchant.id as MerchantId },
    apiKey,
    ...(credential !== undefined && {
      credential: {
        name: credential.name,
        region: credential.region,
        makeDefault: credential.makeDefault ?? true,
        material: materialOf(credential),
      },
    }),
  };
}

export const createMerchant = operatorEndpoint<CreateMerchantBody>({
  summary:
    'Onboard a merchant: the merchant, its first API key and, if given, its first credential; all of it or nothing',
  body: createMerchantBody,
  reply: {
    status: 201,
    description: 'The token is shown this one time',
    schema: z.object({
      merchantId: z.string(),
      apiKey: z.object({ id: z.string(), token: z.string(), expiresAt: z.string() }),
      credentialId: z.string().nullable(),
    }),
  },
  handle: async ({ services, actor, body }) => {
    const onboarded = await services.onboarding.onboard(actor, toOnboardingRequest(body));
    const { merchantId, apiKey, credentialId = null } = onboarded;
    const { id, token, expiresAt } = apiKey;
    return { status: 201, body: { merchantId, apiKey: { id, token, expiresAt }, credentialId } };
  },
});
