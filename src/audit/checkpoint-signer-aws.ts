import { createPublicKey } from 'node:crypto';
import { GetPublicKeyCommand, KMSClient, SignCommand } from '@aws-sdk/client-kms';
import type { KMSClientConfig } from '@aws-sdk/client-kms';
import { isSignedBy, messageOf, readPublicKey, toPem } from './checkpoint.ts';
import type { SignedCheckpoint } from './checkpoint.ts';

export interface CheckpointSignerOptions {
  /** Everything that the SDK would otherwise guess; made by the container. */
  sdk: KMSClientConfig;
  /** Key id, alias or ARN of a KMS key ECC_NIST_P256 for SIGN_VERIFY. */
  keyId: string;
}

/** How long the key behind an alias is believed to be the same. Milliseconds. */
const KEY_KEPT_MS = 10 * 60_000;

/** Signs checkpoints with a key that never leaves KMS. */
export class CheckpointSigner implements Disposable {
  readonly #kms: KMSClient;
  readonly #keyId: string;
  #key: { keyId: string; publicKey: string; untilMs: number } | undefined;

  constructor({ sdk, keyId }: CheckpointSignerOptions) {
    this.#kms = new KMSClient(sdk);
    this.#keyId = keyId;
  }

  /** @throws what the SDK throws, or Error when the key is of another kind or the signature does not verify: neither may be stored. */
  async sign(body: string): Promise<SignedCheckpoint> {
    const { keyId, publicKey } = await this.#currentKey();
    const { Signature } = await this.#kms.send(
      new SignCommand({
        // The key that was asked for, not what an alias means by now.
        KeyId: keyId,
        Message: messageOf({ body, keyId }),
        MessageType: 'RAW',
        SigningAlgorithm: 'ECDSA_SHA_256',
      }),
    );
    const signature = Buffer.from(Signature ?? []).toString('base64');
    const signed = { body, signature, keyId, publicKey };
    if (isSignedBy(signed, readPublicKey(publicKey))) return signed;
    this.#key = undefined;
    throw new Error('KMS answered with a signature that does not verify');
  }

  [Symbol.dispose](): void {
    this.#kms.destroy();
  }

  async #currentKey() {
    if (this.#key !== undefined && this.#key.untilMs > Date.now()) return this.#key;
    const { KeyId, PublicKey, KeyUsage } = await this.#kms.send(
      new GetPublicKeyCommand({ KeyId: this.#keyId }),
    );
    if (KeyId === undefined || PublicKey === undefined || KeyUsage !== 'SIGN_VERIFY')
      throw new Error('the KMS key of the audit trail is not one that signs');
    const der = createPublicKey({ key: Buffer.from(PublicKey), format: 'der', type: 'spki' });
    const publicKey = toPem(readPublicKey(toPem(der)));
    this.#key = { keyId: KeyId, publicKey, untilMs: Date.now() + KEY_KEPT_MS };
    return this.#key;
  }
}
