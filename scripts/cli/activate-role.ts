import { z } from 'zod';
import { roleArn as roleArnForm } from '../../src/credentials/role.ts';
import { parseCredentialId, parseMerchantId } from '../../src/domain/ids.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import type { OnboardFlags } from './onboard-order.ts';
import { problemReply } from './onboard-result.ts';
import type { Problem } from './onboard-result.ts';
import { ONBOARD_TIMEOUT_MS, parse, readText, reasonOf } from './onboard-service.ts';
import { Failure, shown } from './run.ts';

export interface ActivateOrder {
  merchantId: MerchantId;
  credentialId: CredentialId;
  roleArn: string;
}

const activatedReply = z.object({ state: z.string(), accountId: z.string().regex(/^(\d{12})?$/) });
export type Activated = z.output<typeof activatedReply>;

const GOES_WITH: ReadonlySet<string> = new Set([
  'activate',
  'merchant',
  'credential',
  'url',
  'secrets-stdin',
  'secrets-fd',
  'json',
]);

/** The flags of --activate as an order, and what is wrong with them. */
export function activateOrder(
  flags: OnboardFlags,
  roleArn: string,
): { order?: ActivateOrder; problems: string[] } {
  const merchantId = parseMerchantId(flags.merchant ?? '');
  const credentialId = parseCredentialId(flags.credential ?? '');
  const form = roleArnForm.safeParse(roleArn);
  const problems = [
    ...(form.success ? [] : [`--activate ${form.error.issues[0]?.message ?? 'must be the ARN of a role'}`]),
    ...(merchantId === undefined ? ['--merchant must be the id of the merchant'] : []),
    ...(credentialId === undefined
      ? ['--credential must be the id of the credential: it begins with cred_']
      : []),
    ...Object.keys(flags)
      .filter((flag) => !GOES_WITH.has(flag))
      .map((flag) => `--${flag} does not go with --activate`),
  ];
  if (merchantId === undefined || credentialId === undefined) return { problems };
  return { order: { merchantId, credentialId, roleArn }, problems };
}

/**
 * Through a running service. Safe to repeat.
 * @throws Failure
 */
export async function activateOverHttp(
  { merchantId, credentialId, roleArn }: ActivateOrder,
  { origin, merchantToken }: { origin: string; merchantToken: string },
): Promise<Activated> {
  const path = `/api/merchants/${merchantId}/bedrock/credentials/${credentialId}/activate`;
  const send = async () => {
    const answer = await fetch(new URL(path, origin), {
      method: 'POST',
      redirect: 'manual',
      headers: { authorization: `Bearer ${merchantToken}`, 'content-type': 'application/json' },
      body: JSON.stringify({ roleArn, makeDefault: true }),
      signal: AbortSignal.timeout(ONBOARD_TIMEOUT_MS),
    });
    return { status: answer.status, text: await readText(answer) };
  };
  const answer = await send().catch((error: unknown) => {
    throw new Failure(
      `Not known to be active: the answer of ${origin} did not come, or not whole (${reasonOf(error)}). ${AGAIN}`,
    );
  });
  const json = parse(answer.text);
  const activated = activatedReply.safeParse(json);
  if (answer.status === 200 && activated.success) return activated.data;
  const problem = problemReply.extend({ statement: z.string().optional() }).safeParse(json);
  if (problem.success) throw notActivated(problem.data, [merchantToken]);
  throw new Failure(
    `Not known to be active: ${origin} answered ${String(answer.status)}, but not in the words of this service. ${AGAIN}`,
  );
}

const AGAIN = 'The same command may be run again.';

/** The service, or AWS, said no. */
export function notActivated(
  problem: Problem & { statement?: unknown },
  secrets: readonly string[] = [],
): Failure {
  const { code, detail, requestId, problems = [], statement } = problem;
  const lines = [
    detail,
    ...problems.map((one) => `- ${one}`),
    ...(typeof statement === 'string' ? [`statement: ${statement}`] : []),
    ...(requestId === undefined ? [] : [`requestId: ${requestId}`]),
  ];
  return new Failure([`Not active: ${code}`, ...lines.map((line) => `  ${shown(line, secrets)}`)].join('\n'));
}

export function activatedText(
  { merchantId, credentialId, roleArn }: ActivateOrder,
  { state, accountId }: Activated,
  asJson: boolean,
): string {
  if (asJson) return `${JSON.stringify({ merchantId, credentialId, state, accountId, roleArn })}\n`;
  return `${credentialId} is active, and the default of ${merchantId}: AWS gives this service sessions of the role for its ExternalId, and for no other.

  account      ${accountId}
  role         ${roleArn}
`;
}
