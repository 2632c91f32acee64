import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { limit, page, tokenSums } from '../../schemas.ts';

const query = z.strictObject({
  limit,
  cursor: z.uuid('is not one that this route gave out').optional(),
});

export const usageRecords = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary: 'The ledger: one record for each paid attempt at AWS, newest first',
  query,
  reply: {
    status: 200,
    description: 'A page of records',
    schema: page(
      z.object({
        id: z.uuid(),
        state: z.enum(['held', 'settled', 'void', 'unknown']),
        operation: z.string(),
        modelId: z.string(),
        baseModelId: z.string().nullable(),
        region: z.string(),
        accountId: z.string().nullable(),
        credentialSource: z.string(),
        credentialId: z.string().nullable(),
        credentialVersion: z.int().nullable(),
        subject: z.string(),
        apiKeyId: z.string().nullable(),
        endUser: z.string().nullable(),
        requestId: z.string(),
        createdAt: z.string(),
        resolvedAt: z.string().nullable(),
        reason: z.string().nullable(),
        provenance: z.string().nullable(),
        tokens: tokenSums,
        images: z.int(),
        tier: z.string().nullable(),
        maxTokens: z.int().nullable(),
        holdTokens: z.int(),
        holdNanoUsd: z.int().nullable(),
        costNanoUsd: z.int().nullable(),
        awsStatus: z.int().nullable(),
        awsErrorType: z.string().nullable(),
        awsRequestId: z.string().nullable(),
        latencyMs: z.int().nullable(),
        timeToFirstByteMs: z.int().nullable(),
      }),
    ),
  },
  handle: async ({ services, merchant, query: { limit: size, cursor } }) => ({
    status: 200,
    body: await services.usage.records(merchant.id, size, cursor),
  }),
});
