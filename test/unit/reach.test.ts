import type { LookupFunction } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseModelId } from '../../src/bedrock/model-id.ts';
import { BedrockModels } from '../../src/bedrock/models-aws.ts';
import { AwsIdentityCheck } from '../../src/credentials/identity-aws.ts';
import { guardedLookup, isWithinReach, reachOf } from '../../src/domain/address.ts';
import type { Reach } from '../../src/domain/address.ts';
import { BEDROCK_REGIONS } from '../../src/domain/region.ts';
import { accessKey, newCall, newRuntime, resolved } from '../contract/runtime-aws-setup.ts';

const KEY = accessKey('reach');
const MODEL = 'amazon.nova-micro-v1:0';
const [PUBLIC, VPC, METADATA] = ['52.94.133.131', '10.0.3.4', '169.254.169.254'];

/** A resolver that answers every name with these addresses, and notes who asked. */
function resolver(addresses: readonly string[]): { lookup: LookupFunction; asked: string[] } {
  const asked: string[] = [];
  const lookup: LookupFunction = (hostname, options, callback) => {
    asked.push(hostname);
    const all = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    if (options.all === true) callback(null, all);
    else callback(null, all[0]?.address ?? '', all[0]?.family);
  };
  return { lookup, asked };
}

const REACHES: [address: string, public_: boolean, vpc: boolean][] = [
  [PUBLIC, true, true],
  ['2600:1f18::1', true, true],
  [VPC, false, true],
  ['172.31.255.1', false, true],
  ['192.168.0.1', false, true],
  ['100.64.0.1', false, true],
  ['fd00::1', false, true],
  [METADATA, false, false],
  ['fe80::1', false, false],
  ['127.0.0.1', false, false],
  ['::1', false, false],
  ['0.0.0.0', false, false],
  ['::ffff:10.0.0.1', false, true],
  ['::ffff:169.254.169.254', false, false],
  ['224.0.0.1', false, false],
  ['no address', false, false],
];

test.each(REACHES)('%s: public %s, in a VPC %s', (address, isPublic, inVpc) => {
  expect([isWithinReach(address, 'public'), isWithinReach(address, 'vpc')]).toEqual([isPublic, inVpc]);
  expect(isWithinReach(address, 'anywhere')).toBe(true);
});

test('an endpoint that was set may be anywhere, AWS’s own names only where the setting says', () => {
  expect([reachOf('http://x'), reachOf(undefined), reachOf(undefined, true)]).toEqual([
    'anywhere',
    'public',
    'vpc',
  ]);
});

describe('a lookup', () => {
  test.each([true, false])('is refused for one address out of reach among many (all: %s)', async (all) => {
    const ask = (addresses: string[], reach: Reach) =>
      new Promise((resolve) => {
        guardedLookup(resolver(addresses).lookup, reach)('host', { all }, (error) => {
          resolve(error === null);
        });
      });
    expect(await ask([PUBLIC], 'public')).toBe(true);
    expect(await ask([METADATA, PUBLIC], 'public')).toBe(false);
    if (all) expect(await ask([PUBLIC, VPC], 'public')).toBe(false);
    expect(await ask([VPC], 'vpc')).toBe(true);
  });

  test('that fails, fails as it did', async () => {
    const broken: LookupFunction = (_host, _options, callback) => {
      callback(Object.assign(new Error('gone'), { code: 'ENOTFOUND' }), '', 4);
    };
    const code = await new Promise((resolve) => {
      guardedLookup(broken, 'public')('host', {}, (error) => {
        resolve(error?.code);
      });
    });
    expect(code).toBe('ENOTFOUND');
  });
});

describe('a name of AWS that leads inside', () => {
  test.each([VPC, METADATA, '127.0.0.1', '::1'])('to %s is not called by the data plane', async (address) => {
    const { lookup, asked } = resolver([address]);
    await using runtime = newRuntime('', { endpoint: undefined, lookup });
    const failed = runtime.send(newCall(KEY, { resolved: resolved(KEY, 'k') }));
    await expect(failed).rejects.toMatchObject({ code: 'upstream.unreachable', executed: 'no' });
    await using models = new BedrockModels({
      socketsMax: 1,
      connectMs: 500,
      firstByteMs: 500,
      totalMs: 900,
      lookup,
    });
    const question = { resolved: resolved(KEY, 'k'), modelId: MODEL, signal: new AbortController().signal };
    await expect(models.getModel(question)).rejects.toMatchObject({ code: 'upstream.unreachable' });
    expect(new Set(asked)).toEqual(
      new Set(['bedrock-runtime.us-east-1.amazonaws.com', 'bedrock.us-east-1.amazonaws.com']),
    );
  });

  test('is not asked whose a credential is', async () => {
    const { lookup, asked } = resolver([METADATA]);
    const identity = new AwsIdentityCheck({ regions: ['us-east-1'], lookup });
    await expect(identity.checkCredential(KEY, 'us-east-1')).rejects.toMatchObject({
      code: 'upstream.unreachable',
    });
    expect(new Set(asked)).toEqual(new Set(['sts.us-east-1.amazonaws.com']));
  });
});

test('whatever region and model id are given, only hosts of the list are ever looked up', async () => {
  const { lookup, asked } = resolver([METADATA]);
  await using runtime = newRuntime('', { endpoint: undefined, lookup });
  const region = fc.oneof(
    fc.constantFrom<string>(...BEDROCK_REGIONS),
    fc.constantFrom(
      'cn-north-1',
      'us-gov-west-1',
      'us-east-1.evil.example',
      'us-east-1/',
      'us-east-1@evil',
      '..',
      '',
    ),
    fc.string({ maxLength: 40 }),
  );
  const modelId = fc.oneof(
    fc.constantFrom(MODEL, 'us.anthropic.claude-3-5-haiku-20241022-v1:0', 'abcdefghijkl'),
    fc
      .tuple(fc.constantFrom('aws', 'aws-cn', 'aws-us-gov', 'aws-iso', 'evil'), region)
      .map(([partition, at]) => `arn:${partition}:bedrock:${at}:111122223333:provisioned-model/abcdefghijkl`),
    fc.constantFrom(
      '//evil.example/x',
      'https://evil.example',
      '..%2f..%2f',
      'x@evil.example',
      'a\r\nhost: evil',
    ),
    fc.string({ maxLength: 80 }),
  );
  await fc.assert(
    fc.asyncProperty(region, modelId, async (at, id) => {
      const known = parsed(id);
      const chosen = { ...resolved(KEY, at), region: at };
      const sent = runtime.send(newCall(KEY, { resolved: chosen, modelId: known }));
      await expect(sent).rejects.toThrow();
    }),
    { numRuns: 1_500 },
  );
  const hosts = new Set(BEDROCK_REGIONS.map((name) => `bedrock-runtime.${name}.amazonaws.com`));
  expect(asked.length).toBeGreaterThan(100);
  expect(asked.filter((host) => !hosts.has(host))).toEqual([]);
});

/** What gets past the grammar goes on as it is parsed; what does not goes on anyway, as it would if the grammar had a hole. */
function parsed(id: string): string {
  try {
    return parseModelId(id).id;
  } catch {
    return id;
  }
}
