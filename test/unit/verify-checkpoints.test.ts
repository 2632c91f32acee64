import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import type { AuditEvent } from '../../src/audit/audit.ts';
import type { StoredCheckpoint, StoredLeaf } from '../../src/audit/checkpoint-store.ts';
import { messageOf, toPem } from '../../src/audit/checkpoint.ts';
import { leafHash, rootOf, saltOf } from '../../src/audit/merkle.ts';
import { hashOf } from '../../src/audit/verify.ts';
import type { StoredCheckpointsOptions } from '../../src/audit/verify-checkpoints.ts';
import { verifyDatabase } from '../../scripts/cli/verify-chains.ts';
import type { CheckpointResult } from '../../scripts/cli/verify-chains.ts';

const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const ZEROS = '00'.repeat(32);
const hash = (text: string) => createHash('sha256').update(text).digest();
const CHAINS = ['~system', 'merchant-a', 'merchant-b'];
const CHECKPOINTS = 40;

function newChain(merchantId: string): AuditEvent[] {
  const events: AuditEvent[] = [];
  for (let seq = 1; seq <= CHECKPOINTS; seq += 1) {
    const at = new Date(1_780_000_000_000 + seq * 60_000);
    const event = {
      merchantId,
      seq,
      atMicros: String(at.getTime() * 1_000),
      at: at.toISOString(),
      actor: 'x',
      action: 'call.admitted',
      resource: 'x',
      outcome: 'allowed',
      requestId: 'x',
      body: '{}',
      prevHash: events.at(-1)?.hash ?? ZEROS,
    };
    events.push({ ...event, hash: hashOf(event) });
  }
  return events;
}

interface House {
  chains: Map<string, AuditEvent[]>;
  leaves: Map<string, StoredLeaf[]>;
  checkpoints: StoredCheckpoint[];
}

/** An event on each chain before each checkpoint, all signed; `merchant-b` comes with the fifth. */
function newHouse({ origin = 'main', lacks = 0 } = {}): House {
  const chains = new Map(CHAINS.map((chain) => [chain, newChain(chain)]));
  const leaves = new Map(CHAINS.map((chain): [string, StoredLeaf[]] => [chain, []]));
  const checkpoints: StoredCheckpoint[] = [];
  for (let number = 1; number <= CHECKPOINTS; number += 1) {
    const blind = hash(`blind ${String(number)}`);
    const present = CHAINS.filter((chain) => chain !== 'merchant-b' || (number >= 5 && number !== lacks));
    const hashes = present.map((merchantId) => {
      // The operators' chain stands still for ten checkpoints at a time.
      const seq = merchantId === '~system' ? Math.ceil(number / 10) : number;
      const leaf = { number, seq, hash: chains.get(merchantId)?.[seq - 1]?.hash ?? '' };
      const own = leaves.get(merchantId) ?? [];
      if (own.at(-1)?.seq !== seq) own.push(leaf);
      return leafHash({ merchantId, ...leaf, salt: saltOf(blind, merchantId) });
    });
    const body = JSON.stringify({
      format: 'mbk-checkpoint-v1',
      origin,
      number,
      at: new Date(1_780_000_000_000 + number * 60_000).toISOString(),
      chains: hashes.length,
      root: rootOf(hashes)?.toString('hex'),
      previous: hash(checkpoints.at(-1)?.body ?? '').toString('hex'),
    });
    const first = body.replace(hash('').toString('hex'), ZEROS);
    const signed = { body: number === 1 ? first : body, keyId: 'x' };
    const signature = sign('sha256', messageOf(signed), keys.privateKey).toString('base64');
    checkpoints.push({ ...signed, number, blind, signature, publicKey: toPem(keys.publicKey) });
  }
  chains.set('~system', chains.get('~system')?.slice(0, 4) ?? []);
  return { chains, leaves, checkpoints };
}

async function resultsOf(
  { chains, leaves, checkpoints }: House,
  options: StoredCheckpointsOptions & { merchant?: string } = {},
) {
  let [eventPages, leafPages] = [0, 0];
  const after = <Row extends { number: number }>(rows: readonly Row[], number: number, limit: number) =>
    Promise.resolve(rows.filter((row) => row.number > number).slice(0, limit));
  const results = [];
  const stores: Parameters<typeof verifyDatabase>[0] = {
    audit: {
      page: (chain, from, limit) => {
        eventPages += 1;
        const events = chains.get(chain) ?? [];
        return Promise.resolve({ events: events.slice(from, from + limit), head: events.at(-1) });
      },
    },
    checkpoints: {
      page: (number, limit) => after(checkpoints, number, limit),
      leaves: (chain, number, limit) => {
        leafPages += 1;
        return after(leaves.get(chain) ?? [], number, limit);
      },
      leafAt: (chain, number) =>
        Promise.resolve((leaves.get(chain) ?? []).findLast((leaf) => leaf.number <= number)?.number ?? 0),
    },
    merchants: {
      list: () => Promise.resolve({ items: [{ id: 'merchant-a' }, { id: 'merchant-b' }] as never }),
    },
  };
  for await (const result of verifyDatabase(stores, { keys: [keys.publicKey], ...options }))
    results.push(result);
  return { results, eventPages, leafPages, last: results.at(-1) as CheckpointResult };
}

describe('roots of all checkpoints', () => {
  test('are recomputed in as many walks along the leaves as the room for their hashes asks for, and one along the events', async () => {
    const house = newHouse();
    for (const [leavesMax, walks] of [
      [1_000, 1],
      [60, 2],
      [12, 10],
      [1, 40],
    ] as const) {
      const { last, eventPages, leafPages } = await resultsOf(house, { allRoots: true, leavesMax });
      expect(last).toEqual({ origin: 'main', checkpoints: 40, roots: 40, fault: undefined });
      expect([eventPages, Math.ceil(leafPages / 3)]).toEqual([3, walks]);
    }
  });

  test('are chosen, evenly, where all are not asked for: one walk, whatever was kept', async () => {
    const house = newHouse();
    const kept = house.checkpoints.filter(({ number }) => number % 7 === 0);
    const { last, leafPages } = await resultsOf(house, { leavesMax: 12, kept });
    expect(last).toMatchObject({ roots: 4 + 5, fault: undefined });
    expect(leafPages).toBe(3);
  });

  /** As after a rewrite of the newest part that was signed anew since: only the roots from before it tell. */
  function rewritten(): House {
    const house = newHouse();
    const own = house.leaves.get('merchant-a') ?? [];
    house.leaves.set(
      'merchant-a',
      own.filter(({ number }) => number !== 18 && number !== 19),
    );
    return house;
  }

  test('show a rewrite between two that are chosen', async () => {
    const house = rewritten();
    expect((await resultsOf(house, { leavesMax: 12 })).last.fault).toBeUndefined();
    for (const leavesMax of [1_000, 12, 1])
      expect((await resultsOf(house, { leavesMax, allRoots: true })).last.fault).toMatchObject({
        seq: 18,
        detail: expect.stringContaining('its root is not that of the chains'),
      });
    // What was kept is always looked at.
    const kept = house.checkpoints.filter(({ number }) => number === 19);
    expect((await resultsOf(house, { leavesMax: 12, kept })).last.fault).toMatchObject({ seq: 19 });
  });

  test('show a leaf that is one too many', async () => {
    const house = newHouse();
    house.leaves
      .get('merchant-b')
      ?.unshift({ number: 4, seq: 4, hash: house.chains.get('merchant-b')?.[3]?.hash ?? '' });
    expect((await resultsOf(house, { allRoots: true })).last.fault).toMatchObject({ seq: 4 });
  });
});

test('one chain alone is held against no root, and says so', async () => {
  expect((await resultsOf(newHouse(), { merchant: 'merchant-a' })).last).toMatchObject({
    checkpoints: 40,
    roots: 0,
  });
});

test.each([
  ['with a public key', {}, { seq: 0, detail: expect.stringContaining('none is there') }],
  ['without one', { keys: undefined }, undefined],
])('no checkpoint at all, %s', async (_name, options, fault) => {
  const house = { ...newHouse(), checkpoints: [], leaves: new Map() };
  const { results } = await resultsOf(house, options as StoredCheckpointsOptions);
  const found = results.flatMap((one) => one.fault ?? []);
  expect(found).toEqual(
    fault === undefined ? [] : [expect.objectContaining({ merchantId: '~checkpoints', ...fault })],
  );
});

test('a checkpoint with fewer chains than one before it is a fault', async () => {
  expect((await resultsOf(newHouse({ lacks: 20 }))).last.fault).toMatchObject({
    seq: 20,
    detail: expect.stringContaining('fewer chains'),
  });
});

test('a public key that is none is a fault', async () => {
  const house = newHouse();
  (house.checkpoints[2] as StoredCheckpoint).publicKey = 'changed';
  expect((await resultsOf(house, { keys: undefined as never })).last.fault).toMatchObject({ seq: 3 });
});

describe('copies that were kept', () => {
  test('are all compared, when two have one number', async () => {
    const house = newHouse();
    const others = newHouse({ origin: 'other' }).checkpoints;
    const [good, bad] = [house.checkpoints[9], others[9]];
    if (good === undefined || bad === undefined) throw new Error('no checkpoint');
    for (const kept of [
      [good, bad],
      [bad, good],
    ])
      expect((await resultsOf(house, { kept })).last.fault).toMatchObject({ seq: 10 });
    expect((await resultsOf(house, { kept: [good, good] })).last.fault).toBeUndefined();
  });

  test('are refused without a number', async () => {
    const [one] = newHouse().checkpoints;
    if (one === undefined) throw new Error('no checkpoint');
    await expect(resultsOf(newHouse(), { kept: [{ ...one, body: '{}' }] })).rejects.toThrow(/kept/);
  });
});
