import { z } from 'zod';
import type { RoleKit } from '../../../gateway/role-kits.ts';
import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf, MODELS_MAX, roleKit } from './schema.ts';

const FORMATS = ['json', 'terraform', 'cloudformation'] as const;
const query = z.strictObject({
  format: z.enum(FORMATS, `must be one of ${FORMATS.join(', ')}`).optional(),
  models: z
    .string()
    .transform((text) => text.split(','))
    .pipe(z.array(z.string().min(1)).max(MODELS_MAX))
    .optional(),
});

const FILES: Record<(typeof FORMATS)[number], { type: string; text: (kit: RoleKit) => string }> = {
  json: { type: 'application/json', text: ({ json }) => json },
  terraform: { type: 'text/plain; charset=utf-8', text: ({ terraform }) => terraform },
  cloudformation: { type: 'application/yaml', text: ({ cloudFormation }) => cloudFormation },
};

export const credentialPolicies = merchantEndpoint<undefined, z.output<typeof query>>({
  summary:
    'What the role of a credential must look like: its trust policy, and the least that it must allow for models=A,B (all of the region without it); guardrails are not among it. format=json, terraform or cloudformation gives one file',
  query,
  reply: {
    status: 200,
    description: 'All forms, or with format the text of one file',
    schema: roleKit,
  },
  handle: async ({ res, services, merchant, params, query: { format, models = [] } }) => {
    const credential = await services.credentials.get(merchant.id, credentialIdOf(params['cid']));
    const kit = await services.roleKits.of(merchant.id, credential, models);
    if (format === undefined) return { status: 200, body: kit };
    res.status(200).type(FILES[format].type).send(FILES[format].text(kit));
    return undefined;
  },
});
