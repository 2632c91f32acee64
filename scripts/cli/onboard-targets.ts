import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { createMerchantBody, toOnboardingRequest } from '../../src/http/handlers/ops/create-merchant.ts';
import { validate } from '../../src/http/steps/validate.ts';
import { newLogger } from '../../src/observability/logger.ts';

/** What onboarding made. `token` exists here and nowhere else. */
export interface Onboarded {
  merchantId: string;
  apiKey: { id: string; token: string; expiresAt: string };
  credentialId: string | null;
}

/** Refused, with what the service said. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly lines: readonly string[];

  constructor(lines: readonly string[]) {
    super(lines.join('\n'));
    this.lines = lines;
  }
}

const TIMEOUT_MS = 30_000;

/** @throws Refused: by the service (nothing was written), or because its answer was lost (then it says how to find out). */
export async function onboardOverRest(
  url: string,
  operatorToken: string,
  request: object,
): Promise<Onboarded> {
  let response: Response;
  try {
    response = await fetch(new URL('/api/ops/merchants', url), {
      method: 'POST',
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { authorization: `Bearer ${operatorToken}`, 'content-type': 'application/json' },
      body: JSON.stringify(request),
    });
  } catch (error) {
    throw new Refused(notAnswered(error));
  }
  const body = (await response.json().catch(() => ({}))) as Partial<Onboarded> & Problem;
  if (response.status === 201 && body.apiKey !== undefined) return body as Onboarded;
  throw new Refused(problemLines(body, response.status));
}

/** Without a service: with its configuration, on its database. */
export async function onboardInDatabase(request: object): Promise<Onboarded> {
  const { config, secrets } = readConfig();
  try {
    await using service = await build(config, secrets, { logger: newLogger('silent') });
    const body = validate(createMerchantBody, request, 'body');
    const actor = { subject: 'cli:onboard', requestId: 'cli' };
    const {
      merchantId,
      apiKey,
      credentialId = null,
    } = await service.services.onboarding.onboard(actor, toOnboardingRequest(body));
    return { merchantId, apiKey, credentialId };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    throw new Refused(
      problemLines({ code: error.code, detail: error.detail, problems: error.options.problems }, 0),
    );
  }
}

interface Problem {
  code?: string;
  detail?: string;
  problems?: readonly string[] | undefined;
  requestId?: string;
}

function problemLines({ code, detail, problems = [], requestId }: Problem, status: number): string[] {
  return [
    `Not onboarded: ${detail ?? `the answer was ${String(status)} and no problem document. Is this the right URL?`}`,
    ...problems.map((problem) => `  - ${problem}`),
    ...(code === undefined ? [] : [`code: ${code}`]),
    ...(requestId === undefined ? [] : [`requestId: ${requestId}`]),
    'Nothing was written.',
  ];
}

function notAnswered(error: unknown): string[] {
  const cause = error instanceof Error ? (error.cause as { code?: unknown } | undefined) : undefined;
  if (cause?.code === 'ECONNREFUSED')
    return ['Not onboarded: nothing listens at that URL. Nothing was written.'];
  return [
    'The answer was lost, so it is not known whether the merchant was made.',
    'GET /api/ops/merchants tells. If it is there, its first token is lost: make the merchant a new API key.',
  ];
}
