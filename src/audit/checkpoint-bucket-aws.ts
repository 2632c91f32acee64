import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import type { S3ClientConfig } from '@aws-sdk/client-s3';
import type { SignedCheckpoint } from './checkpoint.ts';

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
   * Puts one copy. Again under the same key it becomes a further version, and the first stays: the bucket keeps versions.
   * @throws what the SDK throws.
   */
  async put(number: number, checkpoint: SignedCheckpoint): Promise<void> {
    const { bucket, owner, deployment, retainDays } = this.#options;
    await this.#s3.send(
      new PutObjectCommand({
        Bucket: bucket,
        ...(owner !== undefined && { ExpectedBucketOwner: owner }),
        Key: `audit/${deployment}/${String(number).padStart(12, '0')}.json`,
        Body: Buffer.from(`${JSON.stringify(checkpoint)}\n`, 'utf8'),
        ContentType: 'application/json',
        // S3 demands a checksum of whatever is put under a lock.
        ChecksumAlgorithm: 'SHA256',
        ObjectLockMode: 'COMPLIANCE',
        ObjectLockRetainUntilDate: new Date(Date.now() + retainDays * DAY_MS),
      }),
    );
  }

  [Symbol.dispose](): void {
    this.#s3.destroy();
  }
}
