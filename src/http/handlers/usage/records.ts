import { z } from 'zod';
import { API_KEY_ID_PATTERN } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';
import { limit, page, tokenSums } from '../../schemas.ts';
import { date, orderedDates } from './span.ts';

const query = z
  .strictObject({
    limit,
    cursor: z.uuid('is not one that this route gave out').toLowerCase().optional(),
    state: z.enum(['held', 'settled', 'void', 'unknown']).optional(),
    model: z
      .string()
      .regex(/^[\x21-\x7e]{1,2048}$/, 'must be a model id')
      .optional(),
    apiKey: z.string().regex(API_KEY_ID_PATTERN, 'must be the id of an API key').optional(),
    endUser: z
      .string()
      .regex(/^[\x21-\x7e]{1,128}$/, 'must be the id of an end user')
      .optional(),
    from: date,
    to: date,
  })
  .refine(orderedDates, 'needs from before to');

export const usageRecords = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary:
    'The ledger: one record for each paid attempt at AWS, newest first. A filter looks at so many rows a page: while there is a nextCursor, a page may be short or empty',
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
        priceId: z.string().nullable(),
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
  handle: async ({ services, merchant, query: { limit: size, cursor, ...filter } }) => ({
    status: 200,
    body: await services.usage.records(merchant.id, size, cursor, filter),
  }),
});
