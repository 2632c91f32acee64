/*
 * A process of its own whose environment holds, one after the other, a range of the combinations of ambient variables. In each it builds every
 * client of the data plane and uses it once. Arguments: URL of the stand-in, the trap as JSON, first and last combination.
 * Writes one line of JSON: what each use came to, by combination.
 */
import { BedrockModels } from '../../src/bedrock/models-aws.ts';
import { AwsIdentityCheck } from '../../src/credentials/identity-aws.ts';
import { AwsSecretVault } from '../../src/credentials/vault-aws.ts';
import type { CredentialSource } from '../../src/domain/credential.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { accessKey, apiKey, bytesOf, newCall, newRuntime, resolved } from '../contract/runtime-aws-setup.ts';
import { combination } from './ambient-groups.ts';
import type { AmbientTrap } from './ambient-groups.ts';

const [url = '', trapJson = '{}', first = '0', last = '0'] = process.argv.slice(2);
const trap = JSON.parse(trapJson) as AmbientTrap;
const service = accessKey('ambservice');
const MODEL = 'amazon.nova-micro-v1:0';
const place = {
  merchantId: 'shop-a' as MerchantId,
  credentialId: 'cred_0000000000000000000001' as CredentialId,
  version: 1,
};

/** One key for each way to a credential, and one API key. */
const SOURCES: readonly [CredentialSource, ReturnType<typeof accessKey>][] = [
  ['stored', accessKey('ambstored')],
  ['direct', accessKey('ambdirect', 'session-token-of-direct')],
  ['service-default', accessKey('ambdefault')],
];
const bearer = apiKey('ambient-not');

async function useAll(): Promise<Record<string, string>> {
  const said: Record<string, string> = {};
  await using runtime = newRuntime(url);
  await using models = new BedrockModels({
    socketsMax: 10,
    connectMs: 3_000,
    firstByteMs: 5_000,
    totalMs: 9_000,
    endpoint: url,
  });
  const identity = new AwsIdentityCheck({ regions: ['us-east-1'], endpoints: { sts: url, bedrock: url } });
  using vault = new AwsSecretVault({
    region: 'us-east-1',
    environment: 'test',
    kmsKeyId: 'alias/vault',
    endpoints: { kms: url, secretsManager: url },
    serviceCredentials: service,
  });
  const { signal } = new AbortController();
  for (const [source, key] of SOURCES) {
    const chosen = { ...resolved(key, source), source };
    for (const operation of ['converse', 'converse-stream'] as const) {
      const reply = await runtime.send(newCall(key, { resolved: chosen, operation }));
      await bytesOf(reply);
      said[`${source} ${operation}`] = String(reply.status);
    }
    said[`${source} model`] =
      (await models.getModel({ resolved: chosen, modelId: MODEL, signal }))?.modelId ?? 'none';
    said[`${source} identity`] = (await identity.checkCredential(key, 'us-east-1')).accountId ?? 'none';
  }
  await bytesOf(await runtime.send(newCall(bearer, { resolved: resolved(bearer, 'bearer') })));
  const sealed = await vault.seal(place, SOURCES[0]?.[1] ?? service, () => Promise.resolve());
  said['vault'] = (await vault.open(place, sealed)).kind;
  await vault.discard(sealed.secretName, 'now');
  return said;
}

const before = { ...process.env };
const results: Record<string, Record<string, string>> = {};
for (let number = Number(first); number <= Number(last); number += 1) {
  process.env = { ...before, ...combination(number, trap) };
  results[String(number)] = await useAll().catch((error: unknown) => ({ failed: String(error) }));
}
process.stdout.write(`${JSON.stringify(results)}\n`);
