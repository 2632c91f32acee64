import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import type { Actor } from '../../../domain/audit.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import type { OnboardingRequest } from '../../../gateway/onboarding.ts';
import { operatorEndpoint } from '../../route.ts';
import type { Services } from '../../services.ts';
import { name, region } from '../../schemas.ts';
import { newApiKey } from '../api-keys/schema.ts';
import { materialOf, newCredential, roleKit } from '../credentials/schema.ts';

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

/** The request in the words of the rooms: secrets wrapped, the first credential the default unless said otherwise; a role becomes it when activated. */
function toOnboardingRequest({ apiKey, credential, ...merchant }: CreateMerchantBody): OnboardingRequest {
  return {
    merchant: { ...merchant, id: merchant.id as MerchantId },
    apiKey,
    ...(credential !== undefined && {
      credential: {
        name: credential.name,
        region: credential.region,
        makeDefault: credential.kind !== 'assume-role' && (credential.makeDefault ?? true),
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
    description:
      'The token is shown this one time. `role`: how to make the role of an assume-role credential',
    schema: z.object({
      merchantId: z.string(),
      apiKey: z.object({ id: z.string(), token: z.string(), expiresAt: z.string() }),
      credentialId: z.string().nullable(),
      role: roleKit.optional(),
    }),
  },
  handle: async ({ services, actor, body }) => {
    const { merchantId, apiKey, credentialId, role } = await onboardMerchant(services, actor, body);
    const { id, token, expiresAt } = apiKey;
    const key = { id, token, expiresAt };
    return {
      status: 201,
      body: { merchantId, apiKey: key, credentialId: credentialId ?? null, ...(role && { role }) },
    };
  },
});

/** What the route and the script do: for a role, also what is needed to make it. */
export async function onboardMerchant(
  { credentials, onboarding, roleKits }: Pick<Services, 'credentials' | 'onboarding' | 'roleKits'>,
  actor: Actor,
  body: CreateMerchantBody,
) {
  const { credential } = body;
  if (credential?.kind === 'assume-role') await roleKits.check(credential.region, credential.models);
  const onboarded = await onboarding.onboard(actor, toOnboardingRequest(body));
  const { credentialId } = onboarded;
  if (credential?.kind !== 'assume-role' || credentialId === undefined)
    return { ...onboarded, role: undefined };
  const stored = await credentials.get(body.id as MerchantId, credentialId);
  return { ...onboarded, role: await roleKits.of(body.id as MerchantId, stored, credential.models) };
}
