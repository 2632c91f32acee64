import type { AuditStore } from '../audit/audit-store.ts';
import { parseModelId } from '../bedrock/model-id.ts';
import type { ModelRef } from '../bedrock/model-id.ts';
import { standingOf } from '../bedrock/model-standing.ts';
import type { Listings, Standing } from '../bedrock/model-standing.ts';
import type { BedrockProbes } from '../bedrock/probes-aws.ts';
import { brokenCredential } from '../bedrock/verdicts.ts';
import type { Check, Finding } from '../bedrock/verdicts.ts';
import type { IdentityCheck } from '../credentials/identity.ts';
import type { CredentialResolver, ResolveRequest } from '../credentials/resolve.ts';
import type { AwsIdentity, ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import { PerMerchant } from '../memory/per-merchant.ts';
import { rightOf } from './admission.ts';
import { AtMost } from './at-most.ts';
import { assertHeld } from './held-right.ts';
import type { Rights } from './held-right.ts';
import type { Cell, PermissionAsk, PermissionReport } from './permission-ask.ts';
import { checkOf, OUT_OF_TIME } from './permission-cell.ts';
import type { PermissionCell } from './permission-cell.ts';
import { policyOf } from './permission-policy.ts';
import { withoutTheServicesAccount } from './permission-redaction.ts';
import { unlessAborted } from './unless-aborted.ts';

export interface PermissionTestParts {
  resolver: Pick<CredentialResolver, 'resolve'>;
  identity: IdentityCheck;
  probes: BedrockProbes;
  cell: Pick<PermissionCell, 'test'>;
  audit: Pick<AuditStore, 'append'>;
  rights: Rights;
  /** For the whole test, from its beginning; what is not known by then is said to be so. Milliseconds. */
  totalMs: number;
}

/** Cells of one test that are asked about at a time: AWS throttles the control plane per account. */
const CELLS_AT_A_TIME = 8;
/** Tests of one merchant at a time: a test is up to some hundred questions, within quotas that its calls need too. */
const TESTS_PER_MERCHANT = 2;

/** Asked before each question to AWS. @throws when the right to ask has ended, or nobody can say: then the test ends with that. */
type MayAsk = NonNullable<ResolveRequest['mayAsk']>;
type RegionalCheck = Check & { region: string };

/** What is asked in each region. */
interface Survey {
  models: readonly ModelRef[];
  /** The credential in its own region. */
  home: ResolvedCredential;
  /** What is wrong with the credential wherever it is used. */
  broken: Finding | undefined;
  signal: AbortSignal;
  mayAsk: MayAsk;
  /** With what `mayAsk` threw, to whomever. */
  ended: AbortSignal;
  gate: AtMost;
}

/** Whom AWS says the credential is. */
interface Who {
  identity?: AwsIdentity;
  broken?: Finding;
  checks: RegionalCheck[];
}

interface Surveyed {
  checks: RegionalCheck[];
  cells: Cell[];
  standings: { modelId: string; region: string; standing: Standing }[];
}

/** Finds out what a credential may do, and writes the policy that would let it. */
export class PermissionTest {
  readonly #parts: PermissionTestParts;
  readonly #running = new PerMerchant({ max: TESTS_PER_MERCHANT });

  constructor(parts: PermissionTestParts) {
    this.#parts = parts;
  }

  /**
   * Recorded before AWS is asked anything, to open the credential included, which alone may outlast the time of the test. Before each question the
   * database is asked whether the right to ask still holds; once it does not, no other is asked. Free of charge but for the probe `paid`.
   * @throws ServiceError of resolving; as the admission of a call whose right has ended; model.id_invalid; limit.rate_exceeded while two tests
   *   of this merchant run; ledger.unavailable. What AWS does not answer is no error but a finding.
   */
  async run(ask: PermissionAsk): Promise<PermissionReport> {
    const models = [...new Set(ask.models)].map(parsed);
    return this.#running.run(ask.merchant.id, () => this.#run(ask, models), tooMany);
  }

  async #run(ask: PermissionAsk, models: readonly ModelRef[]): Promise<PermissionReport> {
    const timeUp = AbortSignal.timeout(this.#parts.totalMs);
    const ended = new AbortController();
    const signal = AbortSignal.any([timeUp, ask.callerGone, ended.signal]);
    const mayAsk: MayAsk = async (right) => {
      await assertHeld(this.#parts.rights, rightOf(ask, right)).catch((error: unknown) => {
        // Ends what is under way, too.
        ended.abort(error);
        throw error;
      });
    };
    await this.#record(ask);
    const home = await this.#parts.resolver.resolve({ ...ask, anew: true, mayAsk });
    await mayAsk(home);
    const regions = ask.regions.length === 0 ? [home.region] : [...new Set(ask.regions)];
    const who = await unlessAborted(signal, this.#whoIs(home), nobodyKnown(home));
    const gate = new AtMost(CELLS_AT_A_TIME);
    const about = { models, home, broken: who.broken, signal, mayAsk, ended: ended.signal, gate };
    const surveys = await Promise.all(regions.map((region) => this.#region(ask, region, about)));
    // Whoever it was that asked and was refused, and whatever was made of it.
    ended.signal.throwIfAborted();
    const report: PermissionReport = {
      source: home.source,
      accountId: home.accountId,
      principal: who.identity?.arn,
      checks: [...who.checks, ...surveys.flatMap(({ checks }) => checks)],
      cells: surveys.flatMap(({ cells }) => cells),
      ...policyOf(
        surveys.flatMap(({ standings }) => standings),
        ask.uses,
        home.credential.kind,
      ),
      timedOut: timeUp.aborted,
    };
    return home.source === 'service-default' ? withoutTheServicesAccount(report) : report;
  }

  /** By what the request names: to open the credential may be to ask AWS. */
  #record({ actor, choice, merchant, models, regions, probes }: PermissionAsk): Promise<void> {
    const credentialId =
      choice.kind === 'merchant-default'
        ? merchant.defaultCredentialId
        : choice.kind === 'stored'
          ? choice.credentialId
          : undefined;
    const source = choice.kind === 'merchant-default' ? 'stored' : choice.kind;
    return this.#parts.audit.append(merchant.id, {
      actor: actor.subject,
      action: 'permissions.tested',
      resource: credentialId === undefined ? source : `credential/${credentialId}`,
      outcome: 'allowed',
      requestId: actor.requestId,
      body: { source, models: models.length, regions, probes },
    });
  }

  async #whoIs({ credential, region, accountId }: ResolvedCredential): Promise<Who> {
    // STS does not know Bedrock's API keys; whether one works shows when it is first used.
    if (credential.kind === 'bedrock-api-key') return { checks: [] };
    const probe = 'GetCallerIdentity';
    try {
      const identity = await this.#parts.identity.checkCredential(credential, region);
      const same = accountId === undefined || accountId === identity.accountId;
      const why = same
        ? 'AWS knows the credential.'
        : 'The credential is of another AWS account than before.';
      const checks = [{ probe, outcome: same ? 'ok' : 'credential-broken', why, region } as const];
      return { identity, checks, ...(!same && { broken: brokenCredential(probe, why) }) };
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      const refused = error.code === 'credential.refused_by_aws';
      const why = error.detail;
      const checks = [{ probe, outcome: refused ? 'credential-broken' : 'failed', why, region } as const];
      return { checks, ...(refused && { broken: brokenCredential(probe, why) }) };
    }
  }

  async #region(ask: PermissionAsk, region: string, about: Survey): Promise<Surveyed> {
    const { models, home, gate, signal } = about;
    const mayAsk = () => about.mayAsk(home);
    const same = (finding: Finding) =>
      models.map(({ id }) => ({ modelId: id, region, ...finding, checks: [] }));
    if (about.broken !== undefined) return { checks: [], cells: same(about.broken), standings: [] };
    const resolved = await unlessAborted(signal, this.#inRegion(ask, about, region), OUT_OF_TIME);
    if ('verdict' in resolved) return { checks: [], cells: same(resolved), standings: [] };
    if (!signal.aborted) await unlessAborted(signal, mayAsk(), undefined);
    about.ended.throwIfAborted();
    const { listings, broken, checks } = await this.#survey(resolved, signal);
    if (broken !== undefined) return { checks, cells: same(broken), standings: [] };
    const known = models.map((model) => ({ model, standing: standingOf(model, resolved, listings) }));
    const cells = await Promise.all(
      known.map((one) =>
        gate.run(() => this.#parts.cell.test({ ...one, ask, resolved, listings, signal, mayAsk })),
      ),
    );
    return {
      checks,
      cells,
      standings: known.map(({ model: { id }, standing }) => ({ modelId: id, region, standing })),
    };
  }

  /** The credential for another region than its own, or why it cannot be used there. */
  async #inRegion(
    ask: PermissionAsk,
    { home, mayAsk }: Survey,
    region: string,
  ): Promise<ResolvedCredential | Finding> {
    if (region === home.region) return home;
    try {
      return await this.#parts.resolver.resolve({ ...ask, requestedRegion: region, mayAsk });
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      return { verdict: 'unknown', probe: 'identifier', certainty: 'none', why: error.detail };
    }
  }

  async #survey(
    resolved: ResolvedCredential,
    signal: AbortSignal,
  ): Promise<{ listings: Listings; broken: Finding | undefined; checks: RegionalCheck[] }> {
    const { probes } = this.#parts;
    const asked = { resolved, signal };
    const [models, profiles] = await Promise.all([probes.listModels(asked), probes.listProfiles(asked)]);
    const counted = (what: string) => (found: unknown[]) => `${String(found.length)} ${what}.`;
    const allow = (action: 'bedrock:ListFoundationModels' | 'bedrock:ListInferenceProfiles') => () => [
      { Sid: 'Discover', Effect: 'Allow' as const, Action: [action], Resource: ['*'] },
    ];
    const checks = [
      checkOf('ListFoundationModels', models, counted('models'), allow('bedrock:ListFoundationModels')),
      checkOf('ListInferenceProfiles', profiles, counted('profiles'), allow('bedrock:ListInferenceProfiles')),
    ];
    const bad = checks.find(({ outcome }) => outcome === 'credential-broken');
    return {
      listings: { models, profiles },
      broken: bad && brokenCredential(bad.probe, bad.why),
      checks: checks.map((check) => ({ ...check, region: resolved.region })),
    };
  }
}

function parsed(modelId: string, index: number): ModelRef {
  try {
    return parseModelId(modelId);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const problems = [`models.${String(index)}: ${error.detail}`];
    throw new ServiceError('model.id_invalid', 'One of the models is no model id and no ARN.', { problems });
  }
}

function nobodyKnown({ region }: ResolvedCredential): Who {
  return { checks: [{ probe: 'GetCallerIdentity', outcome: 'failed', why: OUT_OF_TIME.why, region }] };
}

function tooMany(): ServiceError {
  return new ServiceError(
    'limit.rate_exceeded',
    'Two permission tests of this merchant are running. Wait until one is done.',
    { retryAfterSeconds: 5 },
  );
}
