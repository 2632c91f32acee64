import { z } from 'zod';
import { parseModelId, assertModelInScope } from '../../../bedrock/model-id.ts';
import { askingAws } from '../../../domain/audit.ts';
import { CREDENTIAL_SOURCES } from '../../../domain/credential.ts';
import type { SessionDefaults } from '../../../credentials/sessions.ts';
import type { ResolvedCredential } from '../../../domain/credential.ts';
import type { MerchantContext } from '../../context.ts';
import { merchantEndpoint } from '../../route.ts';

const body = z.strictObject({
  modelId: z.string().min(1).max(2_048).optional(),
  temperature: z.number().min(0).max(1).optional(),
  maxTokens: z.int().min(1).max(1_000_000).optional(),
});
type InitializeBody = z.output<typeof body>;

const reply = z.object({
  credentialSource: z.enum(CREDENTIAL_SOURCES),
  accountId: z.string().nullable(),
  region: z.string(),
  credentialId: z.string().nullable(),
  /** What AWS says of the model; kind and status are null where the credential may not ask. */
  model: z
    .object({ modelId: z.string(), kind: z.string().nullable(), status: z.string().nullable() })
    .nullable(),
  defaults: body,
  /** Carries direct credentials for the calls that follow; null for the other sources, which are named in each call anyway. */
  session: z.string().nullable(),
  expiresAt: z.string().nullable(),
});

export const initialize = merchantEndpoint<InitializeBody>({
  summary:
    'Check a credential, its region and a model; direct credentials come back as a sealed session of 15 minutes',
  body,
  namesCredential: true,
  reply: { status: 200, description: 'Whose account it is, and what calls will use', schema: reply },
  handle: async (context) => {
    const { services, body: defaults } = context;
    const resolved = await services.resolver.resolve({ ...context, anew: true });
    const model = await checkModel(context, resolved);
    const sealed = await sealDirect(context, resolved);
    return {
      status: 200,
      body: {
        credentialSource: resolved.source,
        accountId: resolved.accountId ?? null,
        region: resolved.region,
        credentialId: resolved.credentialId ?? null,
        model,
        defaults,
        session: sealed?.session ?? null,
        expiresAt: sealed?.expiresAt.toISOString() ?? null,
      },
    };
  },
});

async function checkModel(
  { services, merchant, actor, callerGone, body: { modelId } }: MerchantContext<InitializeBody>,
  resolved: ResolvedCredential,
) {
  if (modelId === undefined) return null;
  assertModelInScope(parseModelId(modelId), resolved);
  await services.audit.append(merchant.id, askingAws(actor, 'model', resolved));
  const found = await services.models.getModel({ resolved, modelId, signal: callerGone });
  return { modelId, kind: found?.kind ?? null, status: found?.status ?? null };
}

/** Only direct credentials travel in a session; that it is made is recorded before it is handed out. */
async function sealDirect(
  context: MerchantContext<InitializeBody>,
  { region, accountId }: ResolvedCredential,
) {
  const { services, principal, merchant, choice, actor } = context;
  if (choice.kind !== 'direct' || accountId === undefined) return undefined;
  await services.audit.append(merchant.id, {
    actor: actor.subject,
    action: 'session.created',
    resource: 'session',
    outcome: 'allowed',
    requestId: actor.requestId,
    body: { accountId, region },
  });
  return services.sessions.seal(principal, {
    accessKey: choice.accessKey,
    region,
    accountId,
    defaults: defaultsOf(context.body),
  });
}

function defaultsOf({ modelId, temperature, maxTokens }: InitializeBody): SessionDefaults {
  return {
    ...(modelId !== undefined && { modelId }),
    ...(temperature !== undefined && { temperature }),
    ...(maxTokens !== undefined && { maxTokens }),
  };
}
