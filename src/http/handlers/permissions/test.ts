import { z } from 'zod';
import { MANAGED_POLICY_MAX, policySize } from '../../../bedrock/policy-document.ts';
import { POLICY_USES } from '../../../bedrock/policy.ts';
import { PROBES } from '../../../bedrock/probes.ts';
import { CERTAINTIES, VERDICTS } from '../../../bedrock/verdicts.ts';
import { CREDENTIAL_SOURCES } from '../../../domain/credential.ts';
import { PROBES_ON_REQUEST } from '../../../gateway/permission-ask.ts';
import { merchantEndpoint } from '../../route.ts';
import { region } from '../../schemas.ts';
import { callerOf } from '../model/wire.ts';

const body = z
  .strictObject({
    models: z.array(z.string().min(1).max(2_048)).min(1).max(20),
    regions: z.array(region).min(1).max(5).optional(),
    uses: z.array(z.enum(POLICY_USES)).min(1).max(POLICY_USES.length).optional(),
    probes: z.array(z.enum(PROBES_ON_REQUEST)).max(PROBES_ON_REQUEST.length).optional(),
    consent: z.literal(true, 'must be true, or be left out').optional(),
  })
  .refine(
    ({ probes = [], consent }) => !probes.includes('paid') || consent === true,
    'needs consent: true for the probe paid, which costs a few tokens for each model and region',
  );
type Body = z.output<typeof body>;

const statement = z.looseObject({
  Effect: z.literal('Allow'),
  Action: z.array(z.string()),
  Resource: z.array(z.string()),
});
const denied = z.object({
  action: z.string(),
  resource: z.string().optional(),
  principal: z.string().optional(),
  statements: z.array(statement).optional(),
});
const check = z.object({
  probe: z.enum(PROBES),
  outcome: z.enum([
    'ok',
    'denied',
    'model-access',
    'throttled',
    'credential-broken',
    'not-found',
    'invalid',
    'failed',
  ]),
  why: z.string(),
  denied: denied.optional(),
});

export const testPermissions = merchantEndpoint<Body>({
  summary:
    'Which models a credential may call in which regions, why not where it may not, and the least policy that would let it. Free but for the probe paid',
  body,
  namesCredential: true,
  reply: {
    status: 200,
    description: 'A cell for each model and region; what could not be found out says so',
    schema: z.object({
      credentialSource: z.enum(CREDENTIAL_SOURCES),
      accountId: z.string().nullable(),
      principal: z.string().nullable(),
      checks: z.array(check.extend({ region: z.string() })),
      cells: z.array(
        z.object({
          modelId: z.string(),
          region: z.string(),
          verdict: z.enum(VERDICTS),
          probe: z.enum(PROBES),
          certainty: z.enum(CERTAINTIES),
          why: z.string(),
          fix: z.string().optional(),
          profiles: z.array(z.string()).optional(),
          denied: denied.optional(),
          callId: z.uuid().optional(),
          checks: z.array(check),
        }),
      ),
      policy: z.object({ Version: z.string(), Statement: z.array(statement) }).nullable(),
      policyCharacters: z.int().nullable(),
      /** False: to be divided, as a managed policy does not hold it. */
      policyFits: z.boolean().nullable(),
      notInPolicy: z.array(z.object({ modelId: z.string(), region: z.string(), why: z.string() })),
      timedOut: z.boolean(),
    }),
  },
  handle: async (context) => {
    const { models, regions = [], uses = DEFAULT_USES, probes = [] } = context.body;
    const asked = { ...callerOf(context), models, regions, uses, probes };
    const {
      source,
      accountId = null,
      principal = null,
      policy,
      ...rest
    } = await context.services.permissionTest.run(asked);
    const size = policy === undefined ? null : policySize(policy);
    const reply = {
      ...rest,
      credentialSource: source,
      accountId,
      principal,
      policy: policy ?? null,
      policyCharacters: size,
      policyFits: size === null ? null : size <= MANAGED_POLICY_MAX,
    };
    return { status: 200, body: reply };
  },
});

/** What this service does with a model: calls it, counts for it, and asks about it. */
const DEFAULT_USES = ['invoke', 'stream', 'count-tokens', 'describe', 'discover'] as const;
