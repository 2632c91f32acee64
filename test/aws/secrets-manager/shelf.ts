import { createHash } from 'node:crypto';
import { AwsError } from '../wire/errors.ts';
import { nowSeconds } from './secret.ts';
import type { StoredSecret } from './secret.ts';

interface Place {
  accountId: string;
  region: string;
}

/** The secrets of all accounts and regions. */
export class SecretShelf {
  readonly #byArn = new Map<string, StoredSecret>();
  #created = 0;

  /** A new, empty secret. Its ARN ends in six characters that a secret of the same name never has again. */
  create(name: string, { accountId, region }: Place): StoredSecret {
    const suffix = createHash('sha256')
      .update(`${name} ${String(++this.#created)}`)
      .digest('hex')
      .slice(0, 6);
    const arn = `arn:aws:secretsmanager:${region}:${accountId}:secret:${name}-${suffix}`;
    const now = nowSeconds();
    const secret: StoredSecret = {
      arn,
      name,
      accountId,
      region,
      tags: new Map(),
      versions: new Map(),
      createdAt: now,
      changedAt: now,
    };
    this.#byArn.set(arn, secret);
    return secret;
  }

  /** Version ids by label; empty when there is no such secret. */
  labelsOf(name: string): Record<string, string> {
    const secret = [...this.#byArn.values()].find((stored) => stored.name === name);
    const versions = [...(secret?.versions.values() ?? [])];
    return Object.fromEntries(
      versions.flatMap(({ versionId, stages }) => [...stages].map((label) => [label, versionId])),
    );
  }

  remove(secret: StoredSecret): void {
    this.#byArn.delete(secret.arn);
  }

  /** All secrets of one account and region that are not beyond their recovery window. */
  at({ accountId, region }: Place): StoredSecret[] {
    const all = [...this.#byArn.values()].filter((s) => s.accountId === accountId && s.region === region);
    for (const secret of all) if ((secret.deletedAt ?? Infinity) <= nowSeconds()) this.remove(secret);
    return all.filter((s) => this.#byArn.has(s.arn));
  }

  /** By name, ARN, or ARN without its six last characters. */
  find(secretId: string, place: Place): StoredSecret | undefined {
    return this.at(place).find(
      (s) => s.arn === secretId || s.name === secretId || s.arn.slice(0, -7) === secretId,
    );
  }

  /**
   * @throws AwsError AccessDeniedException for an ARN of another account; ResourceNotFoundException;
   *   InvalidRequestException when it is marked for deletion
   */
  open(secretId: string, place: Place): StoredSecret {
    const secret = this.openEvenDeleted(secretId, place);
    if (secret.deletedAt !== undefined) {
      throw new AwsError(
        'InvalidRequestException',
        "You can't perform this operation on the secret because it was marked for deletion.",
      );
    }
    return secret;
  }

  openEvenDeleted(secretId: string, place: Place): StoredSecret {
    const owner = /^arn:aws:secretsmanager:[a-z0-9-]+:(\d{12}):/.exec(secretId)?.[1];
    if (owner !== undefined && owner !== place.accountId) {
      throw new AwsError(
        'AccessDeniedException',
        `User is not authorized to access the secret ${secretId} because no resource-based policy allows it`,
      );
    }
    const secret = this.find(secretId, place);
    if (!secret)
      throw new AwsError('ResourceNotFoundException', "Secrets Manager can't find the specified secret.");
    return secret;
  }
}
