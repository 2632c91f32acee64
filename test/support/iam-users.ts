import type pg from 'pg';
import { AWS } from './aws-keys.ts';
import { onboard } from './people.ts';
import type { MerchantPerson } from './people.ts';
import type { TestService } from './service.ts';

export interface IamUser {
  /** Has the user's first key, a day old, as its stored credential. */
  merchant: MerchantPerson;
  first: IamKey;
  arn: string;
}

export interface IamKey {
  accessKeyId: string;
  secretAccessKey: string;
  accountId: string;
  arn: string;
}

const { accountId } = AWS.merchantA;

/** IAM users of one account whom the stand-in knows, each with a merchant of its own. `service`: asked when it is needed, as tests start it late. */
export class IamUsers {
  readonly #service: () => TestService;
  #count = 0;

  constructor(service: () => TestService) {
    this.#service = service;
  }

  /** An IAM user's that nobody else is. */
  newArn(): string {
    this.#count += 1;
    return `arn:aws:iam::${accountId}:user/user-${String(this.#count)}`;
  }

  /** A key that AWS knows, of the IAM user with this ARN. */
  newKey(arn: string, more: { createdAtMs?: number } = {}): IamKey {
    this.#count += 1;
    const accessKeyId = `AKIAUSER${String(this.#count).padStart(12, '0')}`;
    const secretAccessKey = `user/${String(this.#count)}/`.padEnd(40, 'o');
    const key = { accessKeyId, secretAccessKey, accountId, arn };
    this.#service().standIn.addAccessKey({ ...key, ...more });
    return key;
  }

  async newUser(): Promise<IamUser> {
    const service = this.#service();
    const arn = this.newArn();
    const first = this.newKey(arn, { createdAtMs: Date.now() - 86_400_000 });
    const merchant = await onboard(service, `user-${String(this.#count)}`, { awsKey: first });
    service.standIn.forget();
    return { merchant, first, arn };
  }
}

/** Runs a rotation whose process dies, as it were, before the test of the new version: the database lets it neither promote nor give up. */
export async function asIfItDied<T>(admin: pg.Client, rotation: () => Promise<T>): Promise<T> {
  const ends = [
    'rotation_promote(text, text, integer, jsonb, jsonb, text, text)',
    'rotation_fail(text, text, integer, text, text, text)',
  ];
  for (const signature of ends)
    await admin.query(`REVOKE EXECUTE ON FUNCTION ${signature} FROM merchant_bedrock_app`);
  try {
    return await rotation();
  } finally {
    for (const signature of ends)
      await admin.query(`GRANT EXECUTE ON FUNCTION ${signature} TO merchant_bedrock_app`);
  }
}
