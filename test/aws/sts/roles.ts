/** A role that AssumeRole may give out. */
export interface Role {
  /** `arn:aws:iam::<account>:role/<name>` */
  arn: string;
  /** When set, a caller must send exactly this: AWS's guard against confused deputies. */
  externalId?: string;
  /** Principal ARNs or account ids that the trust policy admits; absent: anyone the stand-in knows. */
  trusts?: readonly string[];
  /** In place of `externalId` and `trusts`: a trust policy of any shape. */
  admits?: (asked: { externalId: string | null; tags: Readonly<Record<string, string>> }) => boolean;
  /** False: the trust policy does not allow sts:TagSession, so a session with tags is denied. */
  taggable?: boolean;
  /** Default 3600. */
  maxSessionSeconds?: number;
  /** The keys of its sessions, in place of random ones. */
  sessionKeys?: { secretAccessKey: string; sessionToken: string };
  /** IAM actions refused to sessions of this role. */
  deny?: readonly string[];
}

/** The roles of all accounts. Registering an ARN again replaces it. */
export class RoleBook {
  readonly #byArn = new Map<string, Role>();

  add(role: Role): void {
    this.#byArn.set(role.arn, { ...role });
  }

  /** As its owner deletes it; sessions that were given out go on. */
  remove(arn: string): void {
    this.#byArn.delete(arn);
  }

  find(arn: string): Role | undefined {
    return this.#byArn.get(arn);
  }
}
