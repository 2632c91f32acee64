import { askingAws } from '../domain/audit.ts';
import type { Actor, AuditTrail } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { CredentialChoice } from '../domain/credential-choice.ts';
import type { AccessKey, AwsIdentity, CredentialSource, ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId } from '../domain/ids.ts';
import type { Merchant } from '../domain/merchant.ts';
import type { MerchantPrincipal } from '../domain/principal.ts';
import type { Secret } from '../domain/secret.ts';
import type { IdentityCheck } from './identity.ts';
import { KeyedHash } from './material.ts';
import { regionFor } from './region-rule.ts';
import type { RoleSessions } from './role-sessions.ts';
import type { Sessions } from './sessions.ts';
import type { CurrentVersion } from './stored-credential.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { Vault } from './vault.ts';

export interface ResolverParts {
  vault: Pick<Vault, 'current' | 'holds' | 'open'>;
  sessions: Pick<Sessions, 'open'>;
  roleSessions: Pick<RoleSessions, 'holds' | 'signerOf'>;
  identity: IdentityCheck;
  audit: AuditTrail;
  clock: Clock;
  /** Regions of this deployment. */
  regions: readonly string[];
  /** The service's own Bedrock account, for merchants who may use it. */
  serviceDefault?: { accessKey: AccessKey; region: string };
}

export interface ResolveRequest {
  principal: MerchantPrincipal;
  merchant: Merchant;
  choice: CredentialChoice;
  actor: Actor;
  /** Only for stored credentials and service defaults, which else are used in their own region. */
  requestedRegion?: string;
  /** Read anew what is otherwise remembered of a stored credential. */
  anew?: boolean;
  /** Throws when the right to ask AWS anything has ended; for requests whose caller is only remembered. */
  mayAsk?: (right: Pick<ResolvedCredential, 'source' | 'credentialId'>) => Promise<void>;
  /** This version of the stored credential and no other; whether it may sign is still for the ledger to say. */
  pinned?: CurrentVersion;
}

/** How long AWS's word on whose direct keys these are is believed. The keys themselves are not kept. */
const DIRECT_IDENTITY_TTL_MS = 60_000;
const DIRECT_IDENTITIES_MAX = 10_000;

/**
 * Turns the choice of a request into the keys that sign it: those and no others.
 * One branch for each kind of choice, and no way from one to another: whatever fails is an error.
 */
export class CredentialResolver implements Disposable {
  readonly #parts: ResolverParts;
  readonly #hash = new KeyedHash();
  readonly #directIdentities: SingleFlightCache<AwsIdentity>;
  readonly #serviceIdentity: SingleFlightCache<AwsIdentity>;

  constructor(parts: ResolverParts) {
    const { clock } = parts;
    this.#parts = parts;
    this.#directIdentities = new SingleFlightCache({
      max: DIRECT_IDENTITIES_MAX,
      ttlMs: DIRECT_IDENTITY_TTL_MS,
      clock,
    });
    this.#serviceIdentity = new SingleFlightCache({ max: 1, ttlMs: Infinity, clock });
  }

  /**
   * @throws ServiceError auth.source_not_allowed | region.not_allowed | credential.none_chosen | credential.not_found |
   * credential.not_usable | credential.unreadable | credential.refused_by_aws | session.invalid | service_defaults.not_configured |
   * vault.unavailable | upstream.unreachable | upstream.throttled | ledger.unavailable
   * Cost: stored: what Vault.current, Vault.open and RoleSessions.signerOf say; direct: one STS call a minute, and one transaction that records it; session and service default: local.
   */
  async resolve(request: ResolveRequest): Promise<ResolvedCredential> {
    const { choice, merchant, principal } = request;
    if (principal.merchantId !== merchant.id)
      throw new ServiceError('internal', 'The request was stopped: caller and merchant differ.');
    switch (choice.kind) {
      case 'direct':
        return this.#direct(request, choice.accessKey, choice.region);
      case 'session':
        return this.#session(request, choice.session);
      case 'stored':
        return this.#stored(request, choice.credentialId);
      case 'service-default':
        return this.#service(request);
      case 'merchant-default':
        return this.#stored(request, defaultOf(merchant));
    }
  }

  [Symbol.dispose](): void {
    this.#directIdentities[Symbol.dispose]();
    this.#serviceIdentity[Symbol.dispose]();
  }

  async #direct(
    request: ResolveRequest,
    accessKey: AccessKey,
    ownRegion: string,
  ): Promise<ResolvedCredential> {
    refuseDirect(request.merchant);
    const region = this.#fixedRegion(request, ownRegion);
    const poolKey = this.#hash.of(request.merchant.id, accessKey);
    const key = `${poolKey}/${region}`;
    if (!this.#directIdentities.has(key)) await request.mayAsk?.({ source: 'direct' });
    const { accountId } = await this.#directIdentities.get(key, () =>
      this.#askWhose(request, 'direct', accessKey, region),
    );
    return { source: 'direct', region, accountId, credential: accessKey, poolKey };
  }

  async #session(request: ResolveRequest, session: Secret): Promise<ResolvedCredential> {
    refuseDirect(request.merchant);
    const { accessKey, accountId, region } = await this.#parts.sessions.open(session, request.principal);
    return {
      source: 'session',
      region: this.#fixedRegion(request, region),
      accountId,
      credential: accessKey,
      poolKey: this.#hash.of(request.merchant.id, accessKey),
    };
  }

  async #stored(request: ResolveRequest, credentialId: CredentialId): Promise<ResolvedCredential> {
    const { merchant, actor, requestedRegion, pinned, anew = false } = request;
    const current = pinned ?? (await this.#parts.vault.current(merchant.id, credentialId, anew));
    const region = regionFor(requestedRegion ?? current.region, this.#parts.regions, merchant);
    const { version, accountId } = current;
    const { vault, roleSessions } = this.#parts;
    const place = { merchantId: merchant.id, credentialId, version };
    const mayAsk = () => request.mayAsk?.({ source: 'stored', credentialId });
    const held = vault.holds(place);
    if (!held) await mayAsk();
    const material = await vault.open(actor, merchant.id, credentialId, version);
    if (held && !roleSessions.holds(place, material, region)) await mayAsk();
    const signer = await roleSessions.signerOf(place, material, region);
    return { source: 'stored', region, accountId, ...signer, credentialId, version };
  }

  async #service(request: ResolveRequest): Promise<ResolvedCredential> {
    const { merchant, requestedRegion } = request;
    if (!merchant.serviceDefaultsAllowed)
      throw notAllowed(
        "The service's own AWS account is not open to this merchant. Name a credential of your own, or ask the operator to allow service defaults.",
      );
    const { serviceDefault, regions } = this.#parts;
    if (serviceDefault === undefined)
      throw new ServiceError(
        'service_defaults.not_configured',
        'This deployment has no AWS account of its own for merchants. Name a credential of your own.',
      );
    const { accessKey, region: home } = serviceDefault;
    const region = regionFor(requestedRegion ?? home, regions, merchant);
    const { accountId } = await this.#serviceIdentity.get('', () =>
      this.#askWhose(request, 'service-default', accessKey, home),
    );
    return {
      source: 'service-default',
      region,
      accountId,
      credential: accessKey,
      poolKey: 'service-default',
    };
  }

  /** Once for all who wait: each question is recorded before it is asked. */
  async #askWhose(
    { actor, merchant }: ResolveRequest,
    source: CredentialSource,
    accessKey: AccessKey,
    region: string,
  ): Promise<AwsIdentity> {
    const { audit, identity } = this.#parts;
    await audit.append(merchant.id, askingAws(actor, 'identity', { source }));
    return identity.checkCredential(accessKey, region);
  }

  /** Direct keys and sessions come with their region; a second one in the same request would contradict it. */
  #fixedRegion({ merchant, requestedRegion }: ResolveRequest, own: string): string {
    if (requestedRegion !== undefined && requestedRegion !== own)
      throw new ServiceError(
        'region.not_allowed',
        `These credentials were given for ${own}. Leave the other region out, or give the credentials for it.`,
      );
    return regionFor(own, this.#parts.regions, merchant);
  }
}

function refuseDirect(merchant: Merchant): void {
  if (merchant.directAllowed) return;
  throw notAllowed(
    'Direct credentials, and sessions made from them, are turned off for this merchant. ' +
      'Store the credential with POST /credentials and send its credentialId, or ask the operator to allow direct credentials.',
  );
}

function defaultOf(merchant: Merchant): CredentialId {
  if (merchant.defaultCredentialId !== undefined) return merchant.defaultCredentialId;
  throw new ServiceError(
    'credential.none_chosen',
    'This request names no credential and the merchant has no default one. Send one of: credentialId; session; ' +
      'awsAccessKeyId, awsSecretAccessKey and awsRegion; useServiceDefaults: true. On AWS-shaped routes send the header x-bedrock-credential-id, ' +
      'x-bedrock-session, x-bedrock-aws-… or x-bedrock-use-service-defaults. Or make a stored credential the default.',
  );
}

function notAllowed(detail: string): ServiceError {
  return new ServiceError('auth.source_not_allowed', detail);
}
