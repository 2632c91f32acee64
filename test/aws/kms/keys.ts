import { createHash } from 'node:crypto';
import { AwsError } from '../wire/errors.ts';
import type { Signer } from '../identity/key-ring.ts';

export type KmsKeyState = 'Enabled' | 'Disabled' | 'PendingDeletion';

export interface KmsKeyInput {
  /** UUID. */
  keyId: string;
  /** With or without the `alias/` prefix. */
  alias?: string;
  accountId: string;
  region: string;
  /** Default SYMMETRIC_DEFAULT, which encrypts; the other one signs. */
  spec?: KmsKeySpec;
}

export type KmsKeySpec = 'SYMMETRIC_DEFAULT' | 'ECC_NIST_P256';

export interface KmsKey {
  keyId: string;
  arn: string;
  accountId: string;
  state: KmsKeyState;
  spec: KmsKeySpec;
  /** Derived from the ARN and therefore no secret: a ciphertext survives a restart of the stand-in. */
  material: Buffer;
}

type Place = Pick<Signer, 'accountId' | 'region'>;

/** The KMS keys of all accounts and regions. */
export class KmsKeys {
  readonly #byArn = new Map<string, KmsKey>();
  /** Alias ARN -> key ARN. */
  readonly #aliases = new Map<string, string>();

  add({ keyId, alias, accountId, region, spec = 'SYMMETRIC_DEFAULT' }: KmsKeyInput): { arn: string } {
    const arn = `arn:aws:kms:${region}:${accountId}:key/${keyId}`;
    const material = createHash('sha256').update(`stand-in kms ${arn}`).digest();
    this.#byArn.set(arn, { keyId, arn, accountId, state: 'Enabled', spec, material });
    if (alias !== undefined)
      this.#aliases.set(`arn:aws:kms:${region}:${accountId}:alias/${alias.replace(/^alias\//, '')}`, arn);
    return { arn };
  }

  setState(keyIdOrArn: string, state: KmsKeyState): void {
    const keys = [...this.#byArn.values()].filter(
      (key) => key.arn === keyIdOrArn || key.keyId === keyIdOrArn,
    );
    if (keys.length === 0) throw new Error(`no such KMS key: ${keyIdOrArn}`);
    for (const key of keys) key.state = state;
  }

  byArn(arn: string): KmsKey | undefined {
    return this.#byArn.get(arn);
  }

  /**
   * The key that a `KeyId` means to this caller: id, ARN, `alias/name` or alias ARN.
   * @throws AwsError NotFoundException | AccessDeniedException
   */
  find(id: string, { accountId, region }: Place): KmsKey {
    const kind = id.startsWith('alias/') ? '' : 'key/';
    const arn = id.startsWith('arn:') ? id : `arn:aws:kms:${region}:${accountId}:${kind}${id}`;
    const key = this.#byArn.get(this.#aliases.get(arn) ?? arn);
    if (!key || !arn.startsWith(`arn:aws:kms:${region}:`)) {
      throw new AwsError(
        'NotFoundException',
        arn.includes(':alias/') ? `Alias ${arn} is not found.` : `Key '${arn}' does not exist`,
      );
    }
    if (key.accountId !== accountId) {
      throw new AwsError(
        'AccessDeniedException',
        'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.',
      );
    }
    return key;
  }
}

/** @throws AwsError DisabledException | KMSInvalidStateException */
export function usable(key: KmsKey): KmsKey {
  if (key.state === 'Disabled') throw new AwsError('DisabledException', `${key.arn} is disabled.`);
  if (key.state === 'PendingDeletion')
    throw new AwsError('KMSInvalidStateException', `${key.arn} is pending deletion.`);
  return key;
}
