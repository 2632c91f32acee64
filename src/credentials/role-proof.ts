import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { AssumableRole, AwsIdentity } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { PerMerchant } from '../memory/per-merchant.ts';
import type { IdentityCheck } from './identity.ts';
import type { AssumeRoleAsk, RoleAssumer } from './role-assumer.ts';
import { isRoleDenied, roleRefused } from './role-refusal.ts';
import type { RoleStore } from './role-store.ts';
import { accountOfRole, newExternalId, sessionNameOf, sessionTagsOf } from './role.ts';
import { CALL_POLICIES, NO_POLICIES } from './session-policy.ts';
import { assumeStatement } from './trust-policy.ts';

export interface RoleProofParts {
  assumer: RoleAssumer;
  identity: IdentityCheck;
  store: Pick<RoleStore, 'foundUnsafe'>;
  /** Counts spans. */
  clock: Clock;
}

/** Between the proofs of one merchant: they are asked with the service's own identity, whose quota all merchants need. Milliseconds. */
const REST_MS = 2_000;

/** Which credential, for whom, and where. */
export interface ProofOf {
  actor: Actor;
  merchantId: MerchantId;
  credentialId: CredentialId;
  region: string;
}

/**
 * Proves that a role lets this service in for one merchant only (docs/decisions/0015). A role that does not look at the ExternalId would let
 * any merchant of this service name it and use it: AWS calls that a confused deputy.
 */
export class RoleProof {
  readonly #parts: RoleProofParts;
  readonly #running: PerMerchant;

  constructor(parts: RoleProofParts) {
    this.#parts = parts;
    this.#running = new PerMerchant({ max: 1, rest: { ms: REST_MS, clock: parts.clock } });
  }

  /**
   * Assumes the role as a call would, and asks AWS whose session it is; then without the ExternalId and with a wrong one, which AWS must refuse.
   * @throws ServiceError credential.unsafe (recorded, with the credential's new state) | credential.refused_by_aws | upstream.unreachable |
   * upstream.throttled | ledger.unavailable | limit.rate_exceeded while another role of the merchant is proven, or was a moment ago. Nothing
   * is proven by a question that AWS did not answer.
   * Cost: six calls of STS; two where AWS denies the first; one more, once in the life of the process, for who the service is. A
   * policy that AWS cannot pack costs a second call, and what AWS does not answer is asked twice.
   */
  prove(of: ProofOf, role: AssumableRole): Promise<AwsIdentity> {
    return this.#running.run(of.merchantId, () => this.#prove(of, role), tooMany);
  }

  async #prove(of: ProofOf, role: AssumableRole): Promise<AwsIdentity> {
    // First, because a finding must not get lost to a question about ourselves.
    const principalArn = await this.#parts.assumer.ownPrincipal();
    const identity = await this.#letsUsIn(of, role);
    const lax = await this.#laxWith(of, role);
    if (lax.length === 0) return identity;
    await this.#parts.store.foundUnsafe(of, role.roleArn, lax);
    throw unsafe(role, principalArn, lax);
  }

  async #letsUsIn(of: ProofOf, role: AssumableRole): Promise<AwsIdentity> {
    const { assumer, identity } = this.#parts;
    const ask = askOf(of, role);
    const { accessKey } = await assumer.assume(ask).catch(async (error: unknown) => {
      throw (await this.#lacksTagsOnly(ask, error)) ? roleRefused('role-tags', error) : error;
    });
    const found = await identity.checkCredential(accessKey, of.region);
    // Other regions need no proof of their own: trust policies are the same everywhere, and whoever names this role in another credential must pass
    // the same proof with that one's ExternalId.
    if (found.accountId !== accountOfRole(role.roleArn)) throw roleRefused('account-changed');
    return found;
  }

  /** AWS answers the same to everything it denies, so the likeliest mistake is told apart by asking once more. */
  async #lacksTagsOnly(ask: AssumeRoleAsk, error: unknown): Promise<boolean> {
    return isRoleDenied(error) && (await this.#letsIn({ ...ask, tags: {}, policies: NO_POLICIES }));
  }

  /**
   * How the role can be assumed although it should not. With tags and without: a statement may ask for one and not for the ExternalId.
   * Wrong ids look like right ones, so that a pattern in the trust policy is found as well.
   */
  async #laxWith(of: ProofOf, role: AssumableRole): Promise<string[]> {
    const { externalId: _right, ...withoutId } = askOf(of, role);
    const without = { ...withoutId, policies: NO_POLICIES };
    const wrong = { ...without, externalId: newExternalId() };
    const questions: [string, AssumeRoleAsk][] = [
      ['without an ExternalId', without],
      ['without an ExternalId and without session tags', { ...without, tags: {} }],
      ['with a wrong ExternalId', wrong],
      ['with a wrong ExternalId and without session tags', { ...wrong, tags: {} }],
    ];
    // All of them to their end: none may still be on its way when the proof has been answered.
    const answers = await Promise.allSettled(
      questions.map(async ([how, ask]) => ((await this.#letsIn(ask)) ? [how] : [])),
    );
    const lax = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const unanswered = answers.find((answer) => answer.status === 'rejected');
    // One way in is enough, whatever AWS would have said to the other questions.
    if (lax.length === 0 && unanswered !== undefined) throw unanswered.reason;
    return lax;
  }

  /** @throws ServiceError when AWS said neither yes nor no. */
  async #letsIn(ask: AssumeRoleAsk): Promise<boolean> {
    try {
      await this.#parts.assumer.assume(ask);
      return true;
    } catch (error) {
      if (isRoleDenied(error)) return false;
      throw error;
    }
  }
}

function tooMany(): ServiceError {
  return new ServiceError(
    'limit.rate_exceeded',
    'A role of this merchant is proven right now, or was a moment ago. Try again in a few seconds.',
    { retryAfterSeconds: 5 },
  );
}

function askOf({ merchantId, credentialId, region }: ProofOf, role: AssumableRole): AssumeRoleAsk {
  return {
    roleArn: role.roleArn,
    externalId: role.externalId,
    region,
    sessionName: sessionNameOf(merchantId),
    tags: sessionTagsOf(merchantId, credentialId),
    policies: CALL_POLICIES,
  };
}

function unsafe(role: AssumableRole, principalArn: string, lax: readonly string[]): ServiceError {
  const statement = JSON.stringify(assumeStatement({ externalId: role.externalId, principalArn }));
  return new ServiceError(
    'credential.unsafe',
    `The trust policy of ${role.roleArn} lets this service in without proof of whom it comes for, so it is not used. Find every statement with ` +
      `"Effect": "Allow" that covers sts:AssumeRole for ${principalArn} (by name, by its account, or by "*"), and put the one in \`statement\` in their place: ` +
      'its Condition is what was missing. Then activate the credential again; a change in IAM can take a minute.',
    { problems: lax.map((how) => `AWS let this service assume the role ${how}`), extra: { statement } },
  );
}
