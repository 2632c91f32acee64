import { requestHeadersForAws } from '../bedrock/headers.ts';
import { assertModelInScope, parseModelId } from '../bedrock/model-id.ts';
import type { CredentialResolver } from '../credentials/resolve.ts';
import type { RoleSessions } from '../credentials/role-sessions.ts';
import type { Rotations } from '../credentials/rotation.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { CallBound, CallIntent, LimitRefusal } from '../ledger/call-intent.ts';
import type { Ledger, OpenCall } from '../ledger/ledger.ts';
import { LimitReached, refusalOf, StaleMerchant } from '../ledger/refusals.ts';
import type { Right } from '../ledger/rights-store.ts';
import type { Merchants } from '../merchants/merchants.ts';
import { boundOf } from './call-bound.ts';
import type { BoundedRequest, PriceLookup } from './call-bound.ts';
import type { ModelsBehind } from './models-behind.ts';
import { bodyHashOf, idempotencyKeyOf, keyHashOf } from './idempotency.ts';
import { assertHeld } from './held-right.ts';
import type { Rights } from './held-right.ts';
import type { PaidCall } from './paid-call.ts';
import type { Sharpen, Sharpening } from './sharpen.ts';

export interface AdmissionParts {
  resolver: CredentialResolver;
  rotations: Pick<Rotations, 'other'>;
  roleSessions: Pick<RoleSessions, 'refused'>;
  ledger: Ledger;
  merchants: Merchants;
  prices: PriceLookup;
  modelsBehind: ModelsBehind;
  sharpening: Sharpening;
  rights: Rights;
  /** Longest call in all. Milliseconds. */
  totalTimeoutMs: number;
}

/** A call that may go out: its ledger row is committed, its cost is held. */
export interface Admitted {
  call: OpenCall;
  resolved: ResolvedCredential;
  /** Images that it makes: AWS does not report them. */
  images: number;
  /** As they go to AWS. */
  headers: Record<string, string>;
  body: Uint8Array;
}

/** Past the longest call, so that a row that is still held then has lost its process. Seconds. */
const DEADLINE_MARGIN_SECONDS = 60;
/** What every AWS SDK sends as its invocation id. Anything else is a caller's text and is not kept. */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** An id of the merchant's own for whom it calls: kept and shown, so nothing that could be a key or token, but hashes in hex. */
const END_USER = /^(?:(?!.*[A-Za-z0-9]{33})[A-Za-z0-9._:@+-]{1,128}|[0-9a-f]{40}|[0-9a-f]{64})$/;

/** Refusals that may come from what this process remembers of the merchant and its credential, and not from what holds. */
const MAY_BE_STALE: ReadonlySet<ErrorCode> = new Set([
  'auth.source_not_allowed',
  'credential.none_chosen',
  'credential.not_found',
  'credential.not_usable',
  'region.not_allowed',
  'model.foreign_arn',
]);

/**
 * Everything before the first byte goes to AWS: with which keys, at most how much, and may it. Merchant and credential are taken from
 * memory; the statement that admits the call compares them with what holds, and a refusal is looked at once more with what is read anew.
 */
export class Admission {
  readonly #parts: AdmissionParts;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
  }

  /** @throws ServiceError of resolving, of the body, and of Ledger.open. Nothing was sent then. */
  async admit(paid: PaidCall): Promise<Admitted> {
    const sharpen = this.#parts.sharpening.ofOneRequest();
    try {
      return await this.#admit(paid, sharpen);
    } catch (error) {
      const stale =
        error instanceof StaleMerchant || (error instanceof ServiceError && MAY_BE_STALE.has(error.code));
      if (!stale) throw error;
      const merchant = await this.#parts.merchants.find(paid.merchant.id);
      // Of a closed merchant the credentials are gone as well: it is told why.
      if (merchant?.status !== 'active') throw refusalOf({ verdict: 'merchant' });
      return this.#admit({ ...paid, merchant, anew: true }, sharpen);
    }
  }

  /**
   * The same call with another key of its stored credential: a new session of its role, or the other live version. Undefined where there is
   * none, or this was the second one already. Never another credential: what the first one resolved to is named.
   * @param refused is void in the ledger; AWS refused its key.
   * @throws as `admit`. Cost where nothing is rotated: one transaction.
   */
  async admitOther(paid: PaidCall, { resolved }: Admitted): Promise<Admitted | undefined> {
    const { credentialId, version, region, accountId, credential } = resolved;
    if (credentialId === undefined || version === undefined || paid.pinned !== undefined) return undefined;
    const { rotations, roleSessions } = this.#parts;
    const pinned = roleSessions.refused(credential)
      ? { version, region, accountId }
      : await rotations.other(paid.merchant.id, credentialId, version);
    return pinned && this.admit({ ...paid, choice: { kind: 'stored', credentialId }, pinned });
  }

  async #admit(paid: PaidCall, sharpen: Sharpen): Promise<Admitted> {
    const { resolver, prices } = this.#parts;
    const model = parseModelId(paid.modelId);
    const headers = requestHeadersForAws(paid.headers, paid.operation);
    const endUser = endUserOf(paid);
    // Before AWS is asked anything with what is only remembered, the database is asked: nothing at all begins with what was revoked.
    const mayAsk = (right: Pick<ResolvedCredential, 'source' | 'credentialId'>) =>
      assertHeld(this.#parts.rights, rightOf(paid, right));
    const resolved = await resolver.resolve({ ...paid, mayAsk });
    assertModelInScope(model, resolved);
    const reached = await this.#parts.modelsBehind.reached(paid, model, resolved, () => mayAsk(resolved));
    const bounded = boundOf(paid, reached, resolved.region, prices);
    const intent = {
      ...this.#intentOf(paid, resolved),
      baseModelId: bounded.baseModelId,
      bound: bounded.bound,
      ...(endUser !== undefined && { endUser }),
      ...idempotencyOf(paid, headers),
    };
    const call = await this.#open(paid.merchant.id, intent, (refusal) =>
      sharpen({ paid, resolved, bounded, refusal }),
    );
    try {
      const { images } = bounded.request.bound;
      return { call, resolved, images, ...outgoing(paid, call, bounded, headers) };
    } catch (error) {
      await call.resolve({ state: 'void', reason: 'never sent', upstream: {} });
      throw error;
    }
  }

  /** Opens a call; one that a limit refused is tried once more if its bound can be made smaller. Nothing was held by the first try. */
  async #open(
    merchantId: MerchantId,
    intent: CallIntent,
    sharpened: (refusal: LimitRefusal) => Promise<CallBound | undefined>,
  ): Promise<OpenCall> {
    const { ledger } = this.#parts;
    try {
      return await ledger.open(merchantId, intent);
    } catch (error) {
      const bound = error instanceof LimitReached ? await sharpened(error.refusal) : undefined;
      if (bound === undefined) throw error;
      return ledger.open(merchantId, { ...intent, bound });
    }
  }

  #intentOf(paid: PaidCall, resolved: ResolvedCredential): Omit<CallIntent, 'bound'> {
    const invocation = paid.headers['amz-sdk-invocation-id'];
    return {
      operation: paid.operation,
      modelId: paid.modelId,
      region: resolved.region,
      source: resolved.source,
      subject: paid.principal.subject,
      requestId: paid.actor.requestId,
      deadlineSeconds: this.#parts.totalTimeoutMs / 1_000 + DEADLINE_MARGIN_SECONDS,
      merchantRevision: paid.merchant.revision,
      ...(resolved.accountId !== undefined && { accountId: resolved.accountId }),
      ...(resolved.credentialId !== undefined && { credentialId: resolved.credentialId }),
      ...(resolved.version !== undefined && { credentialVersion: resolved.version }),
      ...(paid.principal.apiKeyId !== undefined && { apiKeyId: paid.principal.apiKeyId }),
      ...(typeof invocation === 'string' && UUID.test(invocation) && { clientInvocationId: invocation }),
    };
  }
}

/** What a call runs by. */
export function rightOf(
  { merchant, principal }: Pick<PaidCall, 'merchant' | 'principal'>,
  { source, credentialId }: Pick<ResolvedCredential, 'source' | 'credentialId'>,
): Right {
  return { merchantId: merchant.id, apiKeyId: principal.apiKeyId, source, credentialId };
}

/**
 * The bytes and headers to send. Every call carries its id to AWS, where the model invocation logs keep it: by that a call whose answer was
 * lost is found again. In Converse it is a member of the body, else a header.
 */
function outgoing(
  { operation }: PaidCall,
  call: OpenCall,
  { request }: BoundedRequest,
  headers: Record<string, string>,
): Pick<Admitted, 'headers' | 'body'> {
  if (operation === 'count-tokens') return { headers, body: request.encode({}) };
  const metadata = { merchantBedrockCall: call.id };
  const body = request.encode({
    metadata,
    ...(call.maxTokens !== undefined && { maxTokens: call.maxTokens }),
  });
  const inBody = operation === 'converse' || operation === 'converse-stream';
  return {
    body,
    headers: inBody ? headers : { ...headers, 'x-amzn-bedrock-request-metadata': JSON.stringify(metadata) },
  };
}

/** @throws ServiceError request.invalid */
function endUserOf({ headers }: PaidCall): string | undefined {
  const value = headers['x-bedrock-end-user'];
  if (value === undefined) return undefined;
  if (typeof value === 'string' && END_USER.test(value)) return value;
  throw new ServiceError(
    'request.invalid',
    'x-bedrock-end-user must be at most 128 characters of A-Z, a-z, 0-9 and ._:@+-, with no more than 32 letters and digits in a row, or a hash in hex.',
  );
}

/** @throws ServiceError request.invalid */
function idempotencyOf(
  paid: PaidCall,
  headers: Readonly<Record<string, string>>,
): Pick<CallIntent, 'idempotency'> {
  const key = idempotencyKeyOf(paid);
  if (key === undefined) return {};
  return { idempotency: { keyHash: keyHashOf(key).toString('hex'), bodyHash: bodyHashOf(paid, headers) } };
}
