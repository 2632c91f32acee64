import { z } from 'zod';
import { TOKEN_PATTERN } from '../../src/auth/token.ts';
import { API_KEY_ID_PATTERN, CREDENTIAL_ID_PATTERN, MERCHANT_ID_PATTERN } from '../../src/domain/ids.ts';
import { Failure, shown } from './run.ts';

/** The answer of POST /api/ops/merchants. Held to the letter: it is printed on a terminal. */
export const onboardedReply = z.object({
  merchantId: z.string().regex(MERCHANT_ID_PATTERN),
  apiKey: z.object({
    id: z.string().regex(API_KEY_ID_PATTERN),
    token: z.string().regex(TOKEN_PATTERN),
    expiresAt: z.iso.datetime(),
  }),
  credentialId: z.string().regex(CREDENTIAL_ID_PATTERN).nullable(),
  /** Of a role: how to make it. The texts of the files are not taken: these are the same as data. */
  role: z
    .object({
      externalId: z.string().regex(/^[\w+=,.@:/-]{2,1224}$/),
      servicePrincipalArn: z.string().regex(/^arn:aws:iam::\d{12}:[\x21-\x7e]{1,600}$/),
      roleName: z.string().regex(/^[\w+=,.@-]{1,64}$/),
      trustPolicy: z.looseObject({}),
      permissionPolicy: z.looseObject({}),
    })
    .optional()
    // The merchant is there, and its token is nowhere else: what is odd about the role can be asked for again.
    .catch(undefined),
});
export type Onboarded = z.output<typeof onboardedReply>;

/** An error as the service tells it, whichever way it was reached. */
export const problemReply = z.object({
  code: z.string(),
  detail: z.string(),
  requestId: z.string().optional(),
  problems: z.array(z.string()).optional(),
});
export type Problem = z.output<typeof problemReply>;

/** After these, the last commit may have been made or not. */
const UNDECIDED = new Set(['internal', 'ledger.unavailable']);

/** The service said no. */
export function refusedBy(problem: Problem, merchantId: string, secrets: readonly string[] = []): Failure {
  const { code, detail, requestId, problems = [] } = problem;
  const undecided = UNDECIDED.has(code);
  const lines = [
    `${undecided ? 'Not known to be onboarded' : 'Not onboarded, nothing was written'}: ${code}`,
    detail,
    ...problems.map((one) => `- ${one}`),
    ...(requestId === undefined ? [] : [`requestId: ${requestId}`]),
  ].map((line) => shown(line, secrets));
  const [head = '', ...rest] = lines;
  const text = [head, ...rest.map((line) => `  ${line}`)].join('\n');
  return new Failure(undecided ? `${text}\n${howToFindOut(merchantId)}` : text);
}

/** Nobody here knows whether it was done. */
export function unknownOutcome(merchantId: string, why: string): Failure {
  return new Failure(
    `It is not known whether ${merchantId} was onboarded: ${why}.\n${howToFindOut(merchantId)}`,
  );
}

export function howToFindOut(merchantId: string): string {
  return (
    'Run the same command again to find out: it is all or nothing. If the answer is then merchant.already_exists, the first attempt\n' +
    `made ${merchantId}, and the token of its API key is lost. GET /api/ops/merchants lists the merchants that exist.`
  );
}

/** For people. @param where how to reach the same service again, e.g. ` --url https://…` */
export function humanText(onboarded: Onboarded, baseUrl: string, where = ''): string {
  const { merchantId, apiKey, credentialId } = onboarded;
  return `${merchantId} is onboarded.

  merchant     ${merchantId}
  credential   ${credentialId ?? 'none yet'}
  API key      ${apiKey.id}, until ${apiKey.expiresAt}
  token        ${apiKey.token}

That is the token. Keep it: it is not shown again. To see that it works, put it into TOKEN and run

  curl -sS -H "Authorization: Bearer $TOKEN" ${baseUrl}/api/merchants/${merchantId}/bedrock/credentials
${roleText(onboarded, baseUrl, where)}`;
}

/** What is left to do where the credential is a role. */
function roleText({ merchantId, credentialId, role }: Onboarded, baseUrl: string, where: string): string {
  if (role === undefined) return '';
  return `
The role is yours to make, under the name ${role.roleName} if you have no other. It must trust this service, with this ExternalId and no other:

${document(role.trustPolicy)}

and allow at least:

${document(role.permissionPolicy)}

The same as Terraform and CloudFormation:

  curl -sS -H "Authorization: Bearer $TOKEN" '${baseUrl}/api/merchants/${merchantId}/bedrock/credentials/${credentialId ?? ''}/policies?format=terraform'

Until it is proven, nothing is signed with it. When it is there:

  npm run onboard --${where} --merchant ${merchantId} --credential ${credentialId ?? ''} --activate <ARN of the role>
`;
}

/** JSON in plain ASCII: it came from elsewhere, and goes to a terminal. */
function document(policy: object): string {
  return JSON.stringify(policy, undefined, 2).replace(
    /[^\x20-\x7e\n]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** For programs: one line. */
export function jsonLine(onboarded: Onboarded): string {
  const { merchantId, apiKey, credentialId, role } = onboarded;
  const { id: apiKeyId, token, expiresAt } = apiKey;
  return `${JSON.stringify({ merchantId, apiKeyId, token, expiresAt, credentialId, role })}\n`;
}
