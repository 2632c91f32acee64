import { LRUCache } from 'lru-cache';
import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { ApiKeyId, MerchantId } from '../domain/ids.ts';
import { MERCHANT_SCOPES, OPERATOR_SCOPES } from '../domain/principal.ts';
import type { MerchantScope, OperatorScope, Principal } from '../domain/principal.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { Tx } from '../persistence/database.ts';
import type { ApiKeyStore, StoredKey } from './api-key-store.ts';
import { mintToken, parseToken } from './token.ts';
import type { Token, TokenEnvironment } from './token.ts';
import type { StoredHash, TokenHasher } from './token-hash.ts';
import type { TokenRehash } from './token-rehash.ts';

const DAY_MS = 86_400_000;
const DAYS_MAX = 365;
/** How long a verified token is believed where admission asks again. Milliseconds. */
const REMEMBERED_MS = 60_000;
/** How long the row of a key is known for which a wrong secret came, so that the next wrong ones cost no query. Milliseconds. */
const REFUSED_MS = 60_000;

export interface ApiKeysParts {
  store: Pick<ApiKeyStore, 'find' | 'findOperator' | 'insert' | 'insertAlone' | 'roll'>;
  hasher: TokenHasher;
  /** Without it a token keeps the hash that it was made with. */
  rehash?: Pick<TokenRehash, 'later'>;
  clock: Clock;
  /** `live` in production; a token of the other environment is not accepted. */
  environment: TokenEnvironment;
  /** Most tokens remembered. */
  rememberedMax?: number;
}

export interface KeyRequest {
  name: string;
  scopes: readonly MerchantScope[];
  /** 1 to 365; the routes' schema says 90 where nothing is said. */
  expiresInDays: number;
}

/** `token` is shown this one time. */
export interface CreatedKey {
  id: ApiKeyId;
  token: string;
  name: string;
  scopes: readonly MerchantScope[];
  expiresAt: string;
}

/** The successor of a key; `token` is shown this one time. */
export interface RolledKey extends CreatedKey {
  replaces: { id: ApiKeyId; expiresAt: string };
}

/** Bearer tokens of ours: made once, kept as keyed hashes, looked up by their id. */
export class ApiKeys {
  readonly #parts: ApiKeysParts;
  readonly #remembered: SingleFlightCache<Principal | undefined>;
  /** Tokens that were good when they were last asked for, by the keyed hash of the secret. It opens nothing: it only says whom not to suspect. */
  readonly #good: LRUCache<string, true>;
  /** The keyed hashes of keys for which another secret came; without a hash no secret is good: there is no such key, or it is over. */
  readonly #refused: LRUCache<string, { hash: StoredHash | undefined; until: number }>;

  constructor(parts: ApiKeysParts) {
    const { clock, rememberedMax: max = 20_000 } = parts;
    this.#parts = parts;
    this.#remembered = new SingleFlightCache({ max, ttlMs: REMEMBERED_MS, clock });
    this.#good = new LRUCache({ max });
    this.#refused = new LRUCache({ max });
  }

  /**
   * Makes a key for a merchant, in the caller's transaction where one is given.
   * @throws RangeError for a lifetime that is none; ServiceError ledger.unavailable.
   */
  async create(actor: Actor, merchantId: MerchantId, request: KeyRequest, tx?: Tx): Promise<CreatedKey> {
    const { store, hasher, clock, environment } = this.#parts;
    const { name, scopes, expiresInDays } = request;
    const { id, secret, text } = mintToken('merchant', environment);
    const expiresAt = expiryOf(clock.now(), expiresInDays);
    const key = { id, name, environment, scopes, expiresAt, ...hasher.hash(secret) };
    if (tx === undefined) await store.insertAlone(merchantId, actor, key);
    else await store.insert(tx, merchantId, actor, key);
    return { id, token: text, name, scopes, expiresAt: expiresAt.toISOString() };
  }

  /**
   * Makes a successor of a key: same name, scopes and life. The old key goes on for `overlapHours`, or as long as it would have.
   * Who asks must be allowed to hand on the key's scopes: that is the caller's to check.
   * @throws ServiceError api_key.not_found | api_key.not_usable | api_key.rolled_before | ledger.unavailable
   */
  async roll(actor: Actor, merchantId: MerchantId, id: ApiKeyId, overlapHours: number): Promise<RolledKey> {
    const { store, hasher, environment } = this.#parts;
    const minted = mintToken('merchant', environment);
    const successor = { id: minted.id, environment, ...hasher.hash(minted.secret) };
    const { oldExpiresAt, ...made } = await store.roll(actor, merchantId, { id, successor, overlapHours });
    return { id: minted.id, token: minted.text, ...made, replaces: { id, expiresAt: oldExpiresAt } };
  }

  /**
   * Says whose token this is; undefined for every reason not to accept it, without saying which.
   * @throws ServiceError ledger.unavailable. Cost: one look-up by key; none for what has not the form and checksum of a token.
   */
  async verify(text: string): Promise<Principal | undefined> {
    const token = parseToken(text);
    if (token?.environment !== this.#parts.environment) return undefined;
    return token.kind === 'operator' ? this.#operator(token) : this.#merchant(token);
  }

  /**
   * The same from memory, where this process verified the token within the last minute. Only for calls whose admission asks whether the key
   * is live. Kept by the keyed hash of the secret, never by the secret.
   */
  async verifyRemembered(text: string): Promise<Principal | undefined> {
    const token = parseToken(text);
    if (token?.kind !== 'merchant') return this.verify(text);
    const key = this.#memoryKeyOf(token);
    const principal = await this.#remembered.get(key, () => this.verify(text));
    // What was refused is asked again each time.
    if (principal === undefined) this.#remembered.forget(key);
    return principal;
  }

  /**
   * What this process knows of a token without asking anyone. `good` and `bad` are what it was a while ago: only `verify` says what it is.
   * `key` names the key that the token says it is; it is missing for what has not the form and checksum of a token of this environment.
   */
  inMemory(text: string): { key?: string; seems: 'good' | 'bad' | 'unknown' } {
    const token = parseToken(text);
    if (token === undefined || token.environment !== this.#parts.environment) return { seems: 'bad' };
    const key = nameOf(token);
    if (this.#good.has(this.#memoryKeyOf(token))) return { key, seems: 'good' };
    const refused = this.#refused.get(key);
    if (refused === undefined) return { key, seems: 'unknown' };
    // However long ago: until the row is read anew, who tries wrong secrets may have spent all that may be tried with this key.
    if (this.#parts.hasher.matches(token.secret, refused.hash)) return { key, seems: 'good' };
    return { key, seems: refused.until < this.#parts.clock.now() ? 'unknown' : 'bad' };
  }

  async #merchant(token: Token): Promise<Principal | undefined> {
    const key = await this.#parts.store.find(token.id);
    if (!this.#isGood(token, key)) return undefined;
    this.#parts.rehash?.later({ ...token, stored: key, merchantId: key.merchantId });
    const scopes = MERCHANT_SCOPES.filter((scope) => key.scopes.includes(scope));
    return {
      kind: 'merchant',
      merchantId: key.merchantId,
      subject: `api-key:${token.id}`,
      apiKeyId: token.id,
      scopes,
    };
  }

  async #operator(token: Token): Promise<Principal | undefined> {
    const key = await this.#parts.store.findOperator(token.id);
    if (!this.#isGood(token, key)) return undefined;
    this.#parts.rehash?.later({ ...token, stored: key });
    const scopes: OperatorScope[] = OPERATOR_SCOPES.filter((scope) => key.scopes.includes(scope));
    return { kind: 'operator', subject: `operator:${token.id}`, keyId: token.id, scopes };
  }

  /** The secret is hashed for memory and compared, first and always, so that time tells nothing about the rest. */
  #isGood<K extends StoredKey>(token: Token, key: K | undefined): key is K {
    const memoryKey = this.#memoryKeyOf(token);
    const matches = this.#parts.hasher.matches(token.secret, key);
    if (key === undefined || !matches) {
      this.#refuse(token, key);
      return false;
    }
    const good =
      key.environment === token.environment &&
      key.revokedAt === null &&
      key.expiresAt.getTime() > this.#parts.clock.now();
    if (good) this.#good.set(memoryKey, true);
    else {
      this.#good.delete(memoryKey);
      // Revoked or expired: no secret of this key will be good again.
      this.#refuse(token, undefined);
    }
    return good;
  }

  #refuse(token: Token, key: StoredKey | undefined): void {
    const hash = key && { hash: key.hash, pepperVersion: key.pepperVersion };
    this.#refused.set(nameOf(token), { hash, until: this.#parts.clock.now() + REFUSED_MS });
  }

  #memoryKeyOf(token: Token): string {
    return `${nameOf(token)}/${this.#parts.hasher.hash(token.secret).hash.toString('base64')}`;
  }
}

/** An operator's key may have the id of a merchant's. */
function nameOf({ kind, id }: Token): string {
  return `${kind}/${id}`;
}

export interface OperatorKeyRequest {
  name: string;
  scopes: readonly OperatorScope[];
  environment: TokenEnvironment;
  expiresInDays: number;
  now: number;
}

/**
 * An operator's key as a row; only an administrator's script can write it (scripts/operator-key.ts). `token` is shown once.
 * @throws RangeError for a lifetime that is none.
 */
export function newOperatorKey(hasher: TokenHasher, request: OperatorKeyRequest) {
  const { name, scopes, environment, expiresInDays, now } = request;
  const { id, secret, text } = mintToken('operator', environment);
  const { hash, pepperVersion } = hasher.hash(secret);
  const row = {
    id,
    name,
    environment,
    secretHash: hash,
    pepperVersion,
    scopes: [...scopes],
    expiresAt: expiryOf(now, expiresInDays),
  };
  return { token: text, row };
}

/** No key is for ever, whoever asks: schema and scripts check this in better words, this is what holds. */
function expiryOf(nowMs: number, days: number): Date {
  if (!Number.isInteger(days) || days < 1 || days > DAYS_MAX)
    throw new RangeError(`a key lives 1 to ${String(DAYS_MAX)} days`);
  return new Date(nowMs + days * DAY_MS);
}
