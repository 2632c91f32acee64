import { setMaxListeners } from 'node:events';
import { CONTROL_PREFIX, control } from './control.ts';
import { FaultBook } from './faults.ts';
import { Journal } from './journal.ts';
import { serve } from './serve.ts';
import { bedrockState } from './bedrock/state.ts';
import { KeyRing } from './identity/key-ring.ts';
import { KmsKeys } from './kms/keys.ts';
import { SecretShelf } from './secrets-manager/shelf.ts';
import { LockedBuckets } from './s3/locked-buckets.ts';
import type { LockedBucket, LockedObject } from './s3/locked-buckets.ts';
import { LogBook } from './logs/records.ts';
import { RoleBook } from './sts/roles.ts';
import { listen } from './wire/listener.ts';
import { ClientGone, Reply } from './wire/reply.ts';
import { readRequest } from './wire/request.ts';
import type { Withheld } from './bedrock/access.ts';
import type { FaultHandle, FaultRule } from './faults.ts';
import type { AccessKey, BedrockApiKey } from './identity/key-ring.ts';
import type { InvocationLogging } from './logs/records.ts';
import type { JournalEntry } from './journal.ts';
import type { KmsKeyInput, KmsKeyState } from './kms/keys.ts';
import type { House } from './serve.ts';
import type { Role } from './sts/roles.ts';
import type { Arrival } from './wire/listener.ts';

export interface StandInOptions {
  /** Default: any free port. */
  port?: number;
  /** JSON lines: one on receipt, before the answer; one at the end. */
  journalFile?: string;
}

/** A pretended AWS on one loopback port. For tests and demonstrations; nothing in src/ may know it. */
export interface StandIn extends AsyncDisposable {
  /** `http://127.0.0.1:PORT`, the endpoint of all eight services, over HTTP/1.1 and cleartext HTTP/2. */
  readonly url: string;
  /** Oldest first; entries of requests under way change until their outcome is known. */
  readonly journal: readonly JournalEntry[];
  /** Registering an id again replaces the key: that is how a test expires or deactivates it. */
  addAccessKey(key: AccessKey): void;
  addBedrockApiKey(key: BedrockApiKey): void;
  addRole(role: Role): void;
  removeRole(arn: string): void;
  /** Milliseconds before a key that IAM makes from now on is accepted; 0 at the start. */
  setNewKeyDelay(ms: number): void;
  addKmsKey(key: KmsKeyInput): { arn: string };
  setKmsKeyState(keyIdOrArn: string, state: KmsKeyState): void;
  /** Says which foundation model stands behind a provisioned model or application profile ARN. */
  addModelArn(arn: string, modelId: string): void;
  /** Takes a model away from an account or a region; `forget` gives it back. */
  withholdModel(what: Withheld): void;
  /** A bucket with Object Lock. `forget` leaves it, as AWS would. */
  addLockedBucket(bucket: LockedBucket): void;
  /** Every version of every object in it, oldest first. */
  lockedObjects(bucket: string): readonly LockedObject[];
  /** Turns model invocation logging on; `forget` turns it off again. */
  logInvocations(logging: InvocationLogging): void;
  /** Which version of a secret bears which label; empty when there is none of this name. */
  secretLabels(name: string): Record<string, string>;
  /** The access keys of an IAM user, oldest first. */
  accessKeysOf(arn: string): Pick<AccessKey, 'accessKeyId' | 'secretAccessKey' | 'state'>[];
  fault(rule: FaultRule): FaultHandle;
  /** Clears journal, faults and prompt cache; keys, roles and secrets stay. */
  forget(): void;
  /** Ends every connection. */
  close(): Promise<void>;
}

export async function startStandIn(options: StandInOptions = {}): Promise<StandIn> {
  const house = buildHouse(options.journalFile);
  const { world, faults, journal } = house;
  const closing = new AbortController();
  // Every request under way listens for the end.
  setMaxListeners(0, closing.signal);
  const listener = await listen(options.port ?? 0, (arrival) => {
    receive(arrival, house, closing.signal).catch((error: unknown) => {
      arrival.socket?.destroy(error instanceof Error ? error : undefined);
    });
  });
  const close = async (): Promise<void> => {
    closing.abort();
    await listener.close();
  };
  return {
    url: listener.url,
    get journal() {
      return journal.entries;
    },
    addAccessKey: (key) => {
      world.keys.addAccessKey(key);
    },
    addBedrockApiKey: (key) => {
      world.keys.addApiKey(key);
    },
    addRole: (role) => {
      world.roles.add(role);
    },
    removeRole: (arn) => {
      world.roles.remove(arn);
    },
    setNewKeyDelay: (ms) => {
      world.newKeyDelayMs.value = ms;
    },
    addKmsKey: (key) => world.kms.add(key),
    setKmsKeyState: (id, state) => {
      world.kms.setState(id, state);
    },
    addModelArn: (arn, modelId) => {
      world.bedrock.owned.declare(arn, modelId);
    },
    withholdModel: (what) => {
      world.bedrock.access.withhold(what);
    },
    addLockedBucket: (bucket) => {
      world.buckets.add(bucket);
    },
    lockedObjects: (name) => world.buckets.find(name)?.objects ?? [],
    logInvocations: (logging) => {
      world.logs.set(logging);
    },
    secretLabels: (name) => world.secrets.labelsOf(name),
    accessKeysOf: (arn) => world.keys.all().filter((key) => key.arn === arn),
    fault: (rule) => faults.add(rule),
    forget: () => {
      journal.clear();
      faults.clear();
      world.logs.clear();
      world.bedrock.cache.forget();
      world.bedrock.access.forget();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function buildHouse(journalFile: string | undefined): House {
  const journal = new Journal(journalFile);
  return {
    world: {
      keys: new KeyRing(),
      roles: new RoleBook(),
      bedrock: bedrockState(),
      kms: new KmsKeys(),
      secrets: new SecretShelf(),
      logs: new LogBook(journal),
      newKeyDelayMs: { value: 0 },
      buckets: new LockedBuckets(),
    },
    faults: new FaultBook(),
    journal,
  };
}

async function receive(arrival: Arrival, house: House, closing: AbortSignal): Promise<void> {
  const reply = new Reply(arrival, closing);
  const request = await readRequest(arrival);
  try {
    await (request.path.startsWith(CONTROL_PREFIX) ? control : serve)(request, reply, house);
  } catch (error) {
    if (!(error instanceof ClientGone)) throw error;
  }
}
