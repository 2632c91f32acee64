import { createHmac } from 'node:crypto';
import { EncryptJWT, jwtDecrypt } from 'jose';
import { z } from 'zod';
import type { Clock } from '../domain/clock.ts';
import type { AccessKey } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantPrincipal } from '../domain/principal.ts';
import { Secret } from '../domain/secret.ts';

/** What POST /initialize fixes for the calls that follow. */
export interface SessionContents {
  accessKey: AccessKey;
  region: string;
  /** As STS said when the session was made. */
  accountId: string;
  defaults: SessionDefaults;
}

/** Used where a call names none of its own. */
export interface SessionDefaults {
  modelId?: string;
  temperature?: number;
  maxTokens?: number;
}

export interface SessionsOptions {
  /** 32 bytes. */
  key: Secret<Buffer>;
  /** Accepted for opening while sessions sealed with them live on. */
  previousKeys?: readonly Secret<Buffer>[];
  clock: Clock;
  /** Default 900_000: a quarter of an hour. */
  ttlMs?: number;
}

const CHARACTERS_MAX = 8_192;
const TYPE = 'mbk-session+jwt';
const ALGORITHMS = { alg: 'dir', enc: 'A256GCM' } as const;

const claims = z.strictObject({
  merchant: z.string(),
  bearer: z.string(),
  accessKeyId: z.string(),
  secretAccessKey: z.string(),
  sessionToken: z.string().optional(),
  region: z.string(),
  accountId: z.string(),
  defaults: z.strictObject({
    modelId: z.string().exactOptional(),
    temperature: z.number().exactOptional(),
    maxTokens: z.number().exactOptional(),
  }),
  exp: z.number(),
});

/**
 * Sessions: direct credentials that the caller keeps for us, sealed (JWE, `dir` with A256GCM). Nothing is stored; the service only
 * holds the key. A session is of one merchant and one API key, and worthless in other hands.
 */
export class Sessions {
  readonly #options: SessionsOptions;
  /** By key id; the first one seals. */
  readonly #keys: ReadonlyMap<string, Uint8Array>;
  readonly #currentKeyId: string;

  constructor(options: SessionsOptions) {
    const keys = [options.key, ...(options.previousKeys ?? [])].map((key) => key.reveal());
    if (keys.some((key) => key.length !== 32)) throw new TypeError('a session key has 32 bytes');
    this.#options = options;
    this.#keys = new Map(keys.map((key) => [keyIdOf(key), Uint8Array.from(key)]));
    this.#currentKeyId = keyIdOf(options.key.reveal());
  }

  /** @returns the session, to be handed to the caller and kept nowhere. Cost: local only. */
  async seal(
    principal: MerchantPrincipal,
    contents: SessionContents,
  ): Promise<{ session: string; expiresAt: Date }> {
    const { accessKey, region, accountId, defaults } = contents;
    const exp = Math.floor((this.#options.clock.now() + (this.#options.ttlMs ?? 900_000)) / 1_000);
    const payload: z.infer<typeof claims> = {
      merchant: principal.merchantId,
      bearer: bearerOf(principal),
      accessKeyId: accessKey.accessKeyId,
      secretAccessKey: accessKey.secretAccessKey.reveal(),
      ...(accessKey.sessionToken && { sessionToken: accessKey.sessionToken.reveal() }),
      region,
      accountId,
      defaults,
      exp,
    };
    const session = await new EncryptJWT(payload)
      .setProtectedHeader({ ...ALGORITHMS, kid: this.#currentKeyId, typ: TYPE })
      .encrypt(this.#keyOf(this.#currentKeyId));
    if (session.length > CHARACTERS_MAX)
      throw new ServiceError('request.too_large', 'These credentials are too long for a session.');
    return { session, expiresAt: new Date(exp * 1_000) };
  }

  /**
   * Opens a session for the caller it was made for.
   * @throws ServiceError session.invalid: garbled, expired, sealed with another key, of another merchant or API key. Which one is not said.
   */
  async open(session: Secret, principal: MerchantPrincipal): Promise<SessionContents> {
    const payload = await this.#decrypt(session.reveal());
    if (payload?.merchant !== principal.merchantId || payload.bearer !== bearerOf(principal))
      throw new ServiceError(
        'session.invalid',
        'This session is not valid here: it expired, or was made for another API key. Call POST /initialize for a new one.',
      );
    const { accessKeyId, region, accountId, defaults } = payload;
    const accessKey: AccessKey = {
      kind: 'access-key',
      accessKeyId,
      secretAccessKey: new Secret(payload.secretAccessKey),
      ...(payload.sessionToken !== undefined && { sessionToken: new Secret(payload.sessionToken) }),
    };
    return { accessKey, region, accountId, defaults };
  }

  /** jose's errors can hold the claims, so they end here. */
  async #decrypt(session: string): Promise<z.infer<typeof claims> | undefined> {
    if (session.length > CHARACTERS_MAX) return undefined;
    try {
      const { payload } = await jwtDecrypt(
        session,
        ({ kid, zip }) => this.#keyOf(zip === undefined ? kid : ''),
        {
          keyManagementAlgorithms: [ALGORITHMS.alg],
          contentEncryptionAlgorithms: [ALGORITHMS.enc],
          typ: TYPE,
          requiredClaims: ['exp'],
          clockTolerance: 0,
          currentDate: new Date(this.#options.clock.now()),
        },
      );
      return claims.safeParse(payload).data;
    } catch {
      return undefined;
    }
  }

  #keyOf(keyId: string | undefined): Uint8Array {
    const key = this.#keys.get(keyId ?? '');
    if (key === undefined) throw new TypeError('sealed with a key that is not ours');
    return key;
  }
}

/** Names a key without saying anything about it. */
function keyIdOf(key: Buffer): string {
  return createHmac('sha256', key).update('mbk-session-key-id').digest('base64url').slice(0, 12);
}

/** Who may use the session: the API key it was made with, or the subject of a JWT. The words before the colon keep the two apart. */
function bearerOf(principal: MerchantPrincipal): string {
  return principal.apiKeyId === undefined ? `subject:${principal.subject}` : `api-key:${principal.apiKeyId}`;
}
