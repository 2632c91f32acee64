import { createHash, randomBytes } from 'node:crypto';
import type { Signer } from '../identity/key-ring.ts';

export type OwnedKind = 'provisioned-model' | 'application-inference-profile';

/** A Bedrock resource of an account that stands for a foundation model: callable by its ARN. */
export interface OwnedModel {
  arn: string;
  kind: OwnedKind;
  accountId: string;
  region: string;
  name: string;
  /** Foundation model id behind it. */
  modelId: string;
  createdAtMs: number;
  updatedAtMs: number;
  modelUnits: number;
  commitmentDuration?: string | undefined;
  /** SHA-256 of the creating request's token: a retry finds what the first attempt made. */
  tokenHash: string;
}

type Place = Pick<Signer, 'accountId' | 'region'>;
export type NewOwned = Pick<OwnedModel, 'kind' | 'name' | 'modelId'> &
  Partial<Pick<OwnedModel, 'modelUnits' | 'commitmentDuration'>>;

/** Provisioned models and application profiles of all accounts. */
export class OwnedModels {
  readonly #byArn = new Map<string, OwnedModel>();

  /** What somebody made before: there under the very ARN that a test wants. */
  declare(arn: string, modelId: string): void {
    const [, , , region = '', accountId = '', resource = ''] = arn.split(':');
    const [kind, name = ''] = resource.split('/');
    this.#byArn.set(arn, {
      arn,
      kind: kind as OwnedKind,
      accountId,
      region,
      name,
      modelId,
      modelUnits: 1,
      tokenHash: '',
      createdAtMs: 0,
      updatedAtMs: 0,
    });
  }

  /** The foundation model behind an ARN. */
  modelBehind(arn: string): string | undefined {
    return this.#byArn.get(arn)?.modelId;
  }

  create(
    { kind, name, modelId, modelUnits = 0, commitmentDuration }: NewOwned,
    { accountId, region }: Place,
    token: string,
  ): OwnedModel {
    const tokenHash = createHash('sha256').update(`${accountId} ${kind} ${token}`).digest('hex');
    const before = [...this.#byArn.values()].find((owned) => owned.tokenHash === tokenHash);
    if (before) return before;
    // Twelve characters of a-z0-9, as AWS makes them.
    const arn = `arn:aws:bedrock:${region}:${accountId}:${kind}/${randomBytes(6).toString('hex')}`;
    const now = Date.now();
    const owned: OwnedModel = {
      arn,
      kind,
      accountId,
      region,
      name,
      modelId,
      modelUnits,
      commitmentDuration,
      tokenHash,
      createdAtMs: now,
      updatedAtMs: now,
    };
    this.#byArn.set(arn, owned);
    return owned;
  }

  /** By ARN, by the id at its end, or by name. */
  find(kind: OwnedKind, id: string, place: Place): OwnedModel | undefined {
    return this.all(kind, place).find(
      (owned) => owned.arn === id || owned.arn.endsWith(`/${id}`) || owned.name === id,
    );
  }

  all(kind: OwnedKind, { accountId, region }: Place): OwnedModel[] {
    return [...this.#byArn.values()].filter(
      (owned) => owned.kind === kind && owned.accountId === accountId && owned.region === region,
    );
  }

  remove({ arn }: OwnedModel): void {
    this.#byArn.delete(arn);
  }
}
