import { describe, expect, test } from '@jest/globals';
import { ServiceError } from '../../src/domain/errors.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import type { DueRotation, RotationName, RotationState } from '../../src/credentials/rotation-state.ts';
import { RotationSteps } from '../../src/credentials/rotation-steps.ts';
import { RotationWorker } from '../../src/credentials/rotation-worker.ts';
import { Rotations } from '../../src/credentials/rotation.ts';

const NAME: RotationName = {
  merchantId: 'merchant-a' as MerchantId,
  credentialId: 'cred_a' as CredentialId,
  version: 2,
};
const ACTOR = { subject: 'someone', requestId: 'x' };
const silent = new Proxy({}, { get: () => () => undefined }) as never;
/** Lets what can go on go on, until it is so. */
async function turns(isSo: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1_000 && !isSo(); turn += 1) await new Promise(setImmediate);
}
const never = () => new Promise<never>(() => undefined);

describe('a round, while Secrets Manager is silent', () => {
  const DUE: DueRotation = {
    ...NAME,
    ...{ state: 'retired', mode: 'material', keyState: null, keyDue: true, labelled: 'overlap' },
    ...{ overlapOver: true, overdue: false },
  };

  test('is told what changed, and ends overlaps', async () => {
    const forgotten: string[] = [];
    const retired: number[] = [];
    let labels = 0;
    const worker = new RotationWorker({
      store: {
        due: () => Promise.resolve([NAME]),
        over: () => Promise.resolve([1, 2].map((version) => ({ ...NAME, version }))),
        take: () => Promise.resolve(DUE),
        putOff: never,
        fail: never,
        // One that the database does not end is not in the way of the next.
        retire: (_actor, { version }) => {
          retired.push(version);
          return version === 1 ? Promise.reject(new Error('no')) : Promise.resolve(true);
        },
        changed: () =>
          Promise.resolve([{ ...NAME, version: retired.length, state: 'retired' as const, shredded: 1 }]),
      },
      steps: {
        prove: never,
        label: () => {
          labels += 1;
          return never();
        },
      },
      keys: { clean: never },
      vault: { forgetCurrent: (_merchant, credential) => forgotten.push(credential) },
      opened: { forget: () => undefined },
      logger: silent,
    });
    void worker.round();
    await turns(() => labels > 0);
    void worker.round();
    await turns(() => retired.length === 4);
    expect({ labels, forgotten: forgotten.length, retired }).toEqual({
      labels: 1,
      forgotten: 2,
      retired: [1, 2, 1, 2],
    });
  });
});

/** A rotation whose request is slower than another process; `state` is how that left it. */
function overtaken(state: RotationState, errorOfProof?: ServiceError) {
  const stored = { id: NAME.credentialId, kind: 'bedrock-api-key', region: 'us-east-1', version: 2 };
  const rotation = { version: 2, state };
  const store = {
    begin: () => Promise.resolve({ verdict: 'begun', rotation: NAME }),
    sealed: () => Promise.resolve(true),
    openPending: () => (errorOfProof ? Promise.reject(errorOfProof) : Promise.resolve(undefined)),
    stateOf: () => Promise.resolve(state),
    fail: () => Promise.resolve(false),
    latest: () => Promise.resolve(rotation),
    labelsOf: () => Promise.resolve(undefined),
    labelled: () => Promise.resolve(true),
  };
  const parts = {
    store,
    credentials: { get: () => Promise.resolve(stored) },
    audit: { append: () => Promise.resolve() },
    identity: { checkCredential: () => Promise.resolve({}) },
    secrets: { sealNext: () => Promise.resolve({}) },
    vault: silent,
    probes: silent,
  } as never;
  const steps = new RotationSteps(parts);
  const rotations = new Rotations({ ...(parts as object), steps, keys: silent, onLeft: silent } as never);
  const material = { kind: 'bedrock-api-key', apiKey: { reveal: () => 'ABSKx' } } as never;
  return rotations.rotate(ACTOR, NAME.merchantId, NAME.credentialId, material);
}

describe('a request that is slower than the process that went on with its rotation', () => {
  const refused = new ServiceError('credential.refused_by_aws', 'not known');

  test.each<[RotationState, ServiceError | undefined]>([
    ['overlap', undefined],
    ['retired', undefined],
    ['overlap', refused],
    ['retired', refused],
  ])('is told that it is in force: %s', async (state, error) => {
    await expect(overtaken(state, error)).resolves.toMatchObject({ rotation: { state } });
  });

  test.each<[RotationState, ServiceError | undefined, string]>([
    ['failed', undefined, 'rotation.failed'],
    ['pending', undefined, 'rotation.failed'],
    ['failed', refused, 'credential.refused_by_aws'],
    ['rolled-back', refused, 'credential.refused_by_aws'],
  ])('is told that it is not: %s', async (state, error, code) => {
    await expect(overtaken(state, error)).rejects.toMatchObject({ code });
  });
});
