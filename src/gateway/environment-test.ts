import type { AuditStore } from '../audit/audit-store.ts';
import type { BedrockProbes } from '../bedrock/probes-aws.ts';
import type { IdentityCheck } from '../credentials/identity.ts';
import { regionFor } from '../credentials/region-rule.ts';
import type { RoleSessions, Signer } from '../credentials/role-sessions.ts';
import type { CurrentVersion } from '../credentials/stored-credential.ts';
import type { Vault } from '../credentials/vault.ts';
import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { StoredMaterial } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId } from '../domain/ids.ts';
import type { Merchant } from '../domain/merchant.ts';
import { PerMerchant } from '../memory/per-merchant.ts';

/** In the order in which a call needs them. */
export const ENVIRONMENT_STEPS = [
  'configuration',
  'database',
  'vault',
  'region',
  'credential',
  'bedrock',
] as const;
export type EnvironmentStep = (typeof ENVIRONMENT_STEPS)[number];

export interface StepResult {
  step: EnvironmentStep;
  /** `skipped`: it needs a step that failed, or something that is not set up. */
  status: 'ok' | 'failed' | 'skipped';
  durationMs: number;
  /** What was found, and what to do where it is not ok. Names no host. */
  detail: string;
  /** The error that a call would have. */
  code?: string;
}

export interface EnvironmentTestParts {
  audit: Pick<AuditStore, 'append'>;
  vault: Pick<Vault, 'current' | 'reopen'>;
  roleSessions: Pick<RoleSessions, 'newSignerOf'>;
  identity: IdentityCheck;
  probes: Pick<BedrockProbes, 'listModels'>;
  /** Regions of this deployment. */
  regions: readonly string[];
  /** For one step. Milliseconds. */
  stepMs: number;
  /** Counts spans. */
  clock: Clock;
}

/** Between the tests of one merchant: each opens the vault, and assumes a role, on quotas that all merchants need. Milliseconds. */
const REST_MS = 2_000;

interface Asked {
  actor: Actor;
  merchant: Merchant;
  callerGone: AbortSignal;
}

/** What the steps hand on. */
interface Found {
  credentialId: CredentialId;
  current: CurrentVersion;
  /** What the vault holds: keys, or a role that is to be assumed. */
  material: StoredMaterial;
  signer: Signer;
}

type Work = (found: Partial<Found>, asked: Asked) => Promise<string> | string;

/** Walks the path of a merchant's calls up to the model, and says how far it gets. Costs nothing but one use each of KMS and Secrets Manager. */
export class EnvironmentTest {
  readonly #parts: EnvironmentTestParts;
  readonly #running: PerMerchant;

  constructor(parts: EnvironmentTestParts) {
    this.#parts = parts;
    this.#running = new PerMerchant({ max: 1, rest: { ms: REST_MS, clock: parts.clock } });
  }

  /**
   * Recorded in the step `database`. Never throws for what does not work: that is what it tells.
   * @throws ServiceError limit.rate_exceeded while another test of this merchant runs, or did a moment ago
   */
  run(asked: Asked): Promise<StepResult[]> {
    return this.#running.run(asked.merchant.id, () => this.#run(asked), tooMany);
  }

  async #run(asked: Asked): Promise<StepResult[]> {
    const found: Partial<Found> = {};
    const results: StepResult[] = [];
    for (const step of ENVIRONMENT_STEPS) {
      const needed = NEEDS[step].find((name) =>
        results.some((one) => one.step === name && one.status !== 'ok'),
      );
      results.push(
        needed === undefined
          ? await this.#timed(step, () => this.#work[step](found, asked))
          : { step, status: 'skipped', durationMs: 0, detail: `It needs ${needed}, which did not work.` },
      );
    }
    return results;
  }

  readonly #work: Readonly<Record<EnvironmentStep, Work>> = {
    configuration: (found, { merchant }) => {
      const open = this.#parts.regions.filter(
        (region) => merchant.regions.length === 0 || merchant.regions.includes(region),
      );
      if (open.length === 0)
        throw new ServiceError(
          'region.not_allowed',
          'No region is open to this merchant. Ask the operator to enable one.',
        );
      if (merchant.defaultCredentialId !== undefined) found.credentialId = merchant.defaultCredentialId;
      return `The merchant is active on plan ${merchant.plan}; regions: ${open.join(', ')}.`;
    },

    database: async (_found, { actor, merchant }) => {
      await this.#parts.audit.append(merchant.id, {
        actor: actor.subject,
        action: 'environment.tested',
        resource: 'environment',
        outcome: 'allowed',
        requestId: actor.requestId,
      });
      return 'The database answers, and took the audit record of this test.';
    },

    vault: async (found, { actor, merchant }) => {
      const { credentialId } = found;
      if (credentialId === undefined) throw new NotSetUp(NO_DEFAULT);
      found.current = await this.#parts.vault.current(merchant.id, credentialId, true);
      const { version } = found.current;
      found.material = await this.#parts.vault.reopen(actor, merchant.id, credentialId, version);
      return `The default credential ${credentialId} was opened anew.`;
    },

    region: ({ current }, { merchant }) =>
      `Calls go to ${regionFor(current?.region ?? '', this.#parts.regions, merchant)}.`,

    credential: async (found, { merchant }) => {
      const { credentialId, current, material } = found;
      if (credentialId === undefined || current === undefined || material === undefined)
        throw new NotSetUp(NO_DEFAULT);
      const place = { merchantId: merchant.id, credentialId, version: current.version };
      found.signer = await this.#parts.roleSessions.newSignerOf(place, material, current.region);
      const { accountId } = await this.#parts.identity.checkCredential(
        found.signer.credential,
        current.region,
      );
      if (current.accountId !== undefined && current.accountId !== accountId)
        throw new ServiceError(
          'credential.refused_by_aws',
          'The credential was stored for one AWS account and now belongs to another. Delete it, and store it again if that is meant.',
        );
      return accountId === undefined
        ? 'AWS accepts the Bedrock API key.'
        : `AWS knows the credential; it is of account ${accountId}.`;
    },

    bedrock: async ({ current, signer }, { callerGone }) => {
      if (current === undefined || signer === undefined) throw new NotSetUp(NO_DEFAULT);
      const { region, accountId } = current;
      const resolved = { source: 'stored', region, accountId, ...signer } as const;
      const signal = AbortSignal.any([AbortSignal.timeout(this.#parts.stepMs), callerGone]);
      const listed = await this.#parts.probes.listModels({ resolved, signal });
      if ('answer' in listed)
        return `Bedrock answers in ${region} and lists ${String(listed.answer.length)} models.`;
      const { kind, why } = listed.failure;
      // A denial is an answer: the path works, and the list is not what calls need.
      if (kind === 'denied')
        return `Bedrock answers in ${region}; the credential may not list its models. POST …/permissions/test tells what it may do.`;
      if (kind === 'throttled') throw new ServiceError('upstream.throttled', `${why} Try again in a minute.`);
      if (kind === 'credential-broken') throw new ServiceError('credential.refused_by_aws', why);
      throw new ServiceError('upstream.unreachable', `${why} Try again; if it stays, ask the operator.`);
    },
  };

  async #timed(step: EnvironmentStep, work: () => Promise<string> | string): Promise<StepResult> {
    const startedAt = performance.now();
    const done = (rest: Pick<StepResult, 'status' | 'detail' | 'code'>): StepResult => ({
      step,
      durationMs: Math.round(performance.now() - startedAt),
      ...rest,
    });
    try {
      return done({ status: 'ok', detail: await inTime(work(), this.#parts.stepMs) });
    } catch (error) {
      if (error instanceof NotSetUp) return done({ status: 'skipped', detail: error.message });
      if (!(error instanceof ServiceError)) throw error;
      return done({ status: 'failed', detail: error.detail, code: error.code });
    }
  }
}

/** What each step cannot do without. */
const NEEDS: Readonly<Record<EnvironmentStep, readonly EnvironmentStep[]>> = {
  configuration: [],
  database: [],
  vault: ['database'],
  region: ['vault'],
  credential: ['vault', 'region'],
  bedrock: ['vault', 'region', 'credential'],
};

class NotSetUp extends Error {}
const NO_DEFAULT =
  'The merchant has no default credential. Store one with POST /credentials and makeDefault, or name a credential in every request.';

function tooMany(): ServiceError {
  return new ServiceError(
    'limit.rate_exceeded',
    'The environment of this merchant is tested right now, or was a moment ago. Try again in a few seconds.',
    { retryAfterSeconds: 5 },
  );
}

async function inTime<T>(work: Promise<T> | T, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const detail = `It took longer than ${String(ms)} ms. Try again; if it stays, ask the operator.`;
      reject(new ServiceError('upstream.timeout', detail));
    }, ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
