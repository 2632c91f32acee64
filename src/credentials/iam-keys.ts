import type { AccessKey } from '../domain/credential.ts';

/** Whose keys are meant: the IAM user behind this long-lived key. AWS infers the user from the signer, so it can be no other. */
export interface KeyOwner {
  accessKey: AccessKey;
  /** As STS said, e.g. `arn:aws:iam::111122223333:user/bedrock`; only for saying which resource a missing permission is for. */
  principalArn?: string | undefined;
}

/** One access key of a user, without its secret: AWS shows that once, in the answer that creates it. */
export interface IamAccessKey {
  accessKeyId: string;
  state: 'active' | 'inactive';
  createdAt: Date;
}

/**
 * The access keys of a merchant's own IAM user, by which one of them is exchanged for another. Every call is signed by the key given, so
 * the merchant decides in IAM what we may do. A user has two keys at most.
 *
 * @throws ServiceError of every method:
 * - credential.not_usable: temporary keys; they belong to no user
 * - credential.refused_by_aws: `extra.refusal` says why: as an identity check does, or `not-permitted` (with `action`, `resource` and the
 *   `statement` that is missing) or `key-limit`
 * - upstream.throttled, upstream.unreachable: try again; `extra.mayHaveHappened` when a key may have been made whose secret nobody has
 */
export interface IamKeys {
  /** Oldest first. Cost: one call. */
  list(owner: KeyOwner): Promise<IamAccessKey[]>;
  /**
   * A new active key of the same user. It may be some seconds before AWS accepts it everywhere: prove it before use.
   * Cost: one call, never repeated by itself; one more when the limit was reached, to say which keys there are.
   */
  create(owner: KeyOwner): Promise<AccessKey>;
  /** AWS refuses the key from then on (within seconds); it can be activated again in IAM. `gone`: there is no such key any more. */
  deactivate(owner: KeyOwner, accessKeyId: string): Promise<'done' | 'gone'>;
  /** For good. `gone`: it was deleted before. */
  remove(owner: KeyOwner, accessKeyId: string): Promise<'done' | 'gone'>;
}
