import { createHash } from 'node:crypto';
import type { SessionPolicy } from './session-policy.ts';

type KeyState = 'active' | 'expired' | 'deactivated';

/** An AWS access key that the stand-in knows, with its secret, so that signatures can be recomputed. */
export interface AccessKey {
  accessKeyId: string;
  secretAccessKey: string;
  /** Present on temporary credentials; requests must then carry exactly this token. */
  sessionToken?: string;
  accountId: string;
  /** Principal behind the key; by default an IAM user named `stand-in`. */
  arn?: string;
  state?: KeyState;
  /** IAM actions refused to this key: `bedrock:InvokeModel`, `kms:*`. */
  deny?: readonly string[];
  /** All that the principal may do; absent: everything that `deny` does not name. */
  policy?: SessionPolicy | undefined;
  /** Narrows what the key may do; set by AssumeRole with a `Policy`. */
  sessionPolicy?: SessionPolicy | undefined;
  /** Epoch milliseconds after which the key counts as expired. */
  expiresAtMs?: number;
  /** Epoch milliseconds before which AWS does not know the key yet; set by CreateAccessKey. */
  validFromMs?: number;
  /** Epoch milliseconds; default: when it was first registered. */
  createdAtMs?: number;
}

/** A Bedrock API key (bearer token). Its region is not on the wire of a loopback address, so it is declared here. */
export interface BedrockApiKey {
  apiKey: string;
  accountId: string;
  /** Default `us-east-1`. */
  region?: string;
  arn?: string;
  state?: KeyState;
  deny?: readonly string[];
  policy?: SessionPolicy | undefined;
}

/** Who sent a request, once proven. */
export interface Signer {
  accountId: string;
  arn: string;
  region: string;
  accessKeyId?: string;
  bearerFingerprint?: string;
  deny: readonly string[];
  policy?: SessionPolicy | undefined;
  sessionPolicy?: SessionPolicy | undefined;
  /** True for temporary credentials: chaining a role from them is limited to one hour. */
  temporary: boolean;
}

/** The keys the stand-in accepts. Registering an id again replaces it: that is how tests expire or deactivate a key. */
export class KeyRing {
  readonly #accessKeys = new Map<string, AccessKey>();
  readonly #apiKeys = new Map<string, BedrockApiKey>();

  addAccessKey(key: AccessKey): void {
    const createdAtMs = key.createdAtMs ?? this.#accessKeys.get(key.accessKeyId)?.createdAtMs ?? Date.now();
    this.#accessKeys.set(key.accessKeyId, { ...key, createdAtMs });
  }

  addApiKey(key: BedrockApiKey): void {
    this.#apiKeys.set(key.apiKey, { ...key });
  }

  accessKey(accessKeyId: string): AccessKey | undefined {
    return this.#accessKeys.get(accessKeyId);
  }

  /** In the order in which they were first registered. */
  all(): readonly AccessKey[] {
    return [...this.#accessKeys.values()];
  }

  removeAccessKey(accessKeyId: string): void {
    this.#accessKeys.delete(accessKeyId);
  }

  apiKey(apiKey: string): BedrockApiKey | undefined {
    return this.#apiKeys.get(apiKey);
  }
}

export function principalArn(key: { accountId: string; arn?: string }): string {
  return key.arn ?? `arn:aws:iam::${key.accountId}:user/stand-in`;
}

/** Names a bearer token in the journal without holding it: the first 16 hex digits of its SHA-256. */
export function bearerFingerprint(token: string): string {
  return createHash('sha256').update(token).digest('hex').slice(0, 16);
}
