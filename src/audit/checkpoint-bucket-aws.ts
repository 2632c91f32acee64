import { GetObjectCommand, PutObjectCommand, S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import type { S3ClientConfig } from '@aws-sdk/client-s3';
import type { SignedCheckpoint } from './checkpoint.ts';
import { sha256 } from './known-checkpoints.ts';

export interface CheckpointBucketOptions {
  /** Everything that the SDK would otherwise guess; made by the container. */
  sdk: S3ClientConfig;
  bucket: string;
  /** Account id: S3 refuses when the bucket is another's. */
  owner?: string | undefined;
  /** Names the folder, so that deployments can share a bucket. */
  deployment: string;
  /** How long nobody, its owner included, can remove or replace a copy. */
  retainDays: number;
}

const DAY_MS = 24 * 3_600_000;

/** Copies of checkpoints where whoever owns the database cannot reach them: S3 with Object Lock in compliance mode. */
export class CheckpointBucket implements Disposable {
  readonly #s3: S3Client;
  readonly #options: CheckpointBucketOptions;

  constructor(options: CheckpointBucketOptions) {
    this.#options = options;
    this.#s3 = new S3Client({
      ...options.sdk,
      // The bucket in the path, so that the host is the one expected.
      forcePathStyle: true,
      followRegionRedirects: false,
      useArnRegion: false,
      disableMultiregionAccessPoints: true,
      disableS3ExpressSessionAuth: true,
      useAccelerateEndpoint: false,
      useGlobalEndpoint: false,
    });
  }

  /**
   * Puts one copy, once: a number belongs to the first checkpoint that had it. Another one with that number, of a database that was rewritten
   * or restored, is put beside it under a key of its own, so that neither is lost.
   * @throws what the SDK throws.
   */
  async put(number: number, checkpoint: SignedCheckpoint): Promise<'kept' | 'beside'> {
    const name = String(number).padStart(12, '0');
    const text = `${JSON.stringify(checkpoint)}\n`;
    if ((await this.#create(name, text)) || (await this.#read(name)) === text) return 'kept';
    await this.#create(`${name}-${sha256(checkpoint.body).slice(0, 16)}`, text);
    return 'beside';
  }

  [Symbol.dispose](): void {
    this.#s3.destroy();
  }

  #place(name: string) {
    const { bucket, owner, deployment } = this.#options;
    return {
      Bucket: bucket,
      ...(owner !== undefined && { ExpectedBucketOwner: owner }),
      Key: `audit/${deployment}/${name}.json`,
    };
  }

  /** False when there is one of that name, whatever is in it. */
  async #create(name: string, text: string): Promise<boolean> {
    try {
      await this.#s3.send(this.#putOnce(name, text));
      return true;
    } catch (error) {
      if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 412) return false;
      throw error;
    }
  }

  #putOnce(name: string, text: string): PutObjectCommand {
    return new PutObjectCommand({
      ...this.#place(name),
      Body: Buffer.from(text, 'utf8'),
      ContentType: 'application/json',
      // Versions alone would keep the first one too, but show whoever looks the last one.
      IfNoneMatch: '*',
      // S3 demands a checksum of whatever is put under a lock.
      ChecksumAlgorithm: 'SHA256',
      ObjectLockMode: 'COMPLIANCE',
      ObjectLockRetainUntilDate: new Date(Date.now() + this.#options.retainDays * DAY_MS),
    });
  }

  async #read(name: string): Promise<string | undefined> {
    const { Body } = await this.#s3.send(new GetObjectCommand(this.#place(name)));
    return Body?.transformToString();
  }
}
