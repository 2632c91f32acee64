import { z } from 'zod';
import { CREDENTIAL_ID_PATTERN } from './ids.ts';

const credentialId = z.string().regex(CREDENTIAL_ID_PATTERN, 'must be the id of a credential').optional();

/**
 * Where a merchant's model invocation logs are. They are in the account and region of each call, so neither is said here. `credentialId` reads
 * them; the merchant's default credential where it is not given.
 */
export const invocationLogsSchema = z.union(
  [
    z.strictObject({
      credentialId,
      cloudWatch: z.strictObject({
        logGroup: z.string().regex(/^[A-Za-z0-9_./#-]{1,512}$/, 'must be the name of a log group'),
      }),
    }),
    z.strictObject({
      credentialId,
      s3: z.strictObject({
        bucket: z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'must be the name of a bucket'),
        /** Without the slash at its end. */
        prefix: z
          .string()
          .regex(
            /^(?!\/)(?!.*\/\/)(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9!_.*'()/-]{1,512}(?<!\/)$/,
            'must be a plain prefix of keys',
          )
          .optional(),
      }),
    }),
  ],
  'must be {cloudWatch: {logGroup}} or {s3: {bucket, prefix}}, each with a credentialId if it is not the default one',
);
export type InvocationLogs = z.output<typeof invocationLogsSchema>;
