import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { AuditEvent } from '../../src/audit/audit.ts';
import { messageOf, toPem } from '../../src/audit/checkpoint.ts';
import type { ProvenCheckpoint } from '../../src/audit/checkpoint.ts';
import { auditExport } from '../../src/audit/export.ts';
import { leafHash, rootOf } from '../../src/audit/merkle.ts';
import { hashOf } from '../../src/audit/verify.ts';
import { ExportVerifier } from '../../src/audit/verify-export.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { readSigned, verifyExports } from '../../scripts/cli/verify-exports.ts';

const CHAIN = 'merchant-a' as MerchantId;
const ZEROS = '00'.repeat(32);
const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const hash = (text: string) => createHash('sha256').update(text);
const hex = (text: string) => hash(text).digest('hex');

/** A chain as it is written; `change` is what a forger makes of an event before everything after it is made right. */
function newChain(length: number, change: (event: AuditEvent) => void = () => undefined): AuditEvent[] {
  const events: AuditEvent[] = [];
  let prevHash = ZEROS;
  for (let seq = 1; seq <= length; seq += 1) {
    const micros = 1_780_000_000_000_000 + seq * 1_234_567;
    const event = {
      merchantId: CHAIN,
      seq,
      atMicros: String(micros),
      at: new Date(micros / 1_000).toISOString(),
      actor: 'api-key:abcdefghijkl',
      action: 'call.admitted',
      resource: `call/${String(seq)}`,
      outcome: 'allowed',
      requestId: hex(String(seq)).slice(0, 32),
      body: JSON.stringify({ holdTokens: seq, note: 'ä "quoted" \u2028' }),
      prevHash,
      hash: '',
    };
    change(event);
    event.hash = hashOf(event);
    prevHash = event.hash;
    events.push(event);
  }
  return events;
}

interface CheckpointFacts {
  number?: number;
  previous?: string;
  origin?: string;
  key?: KeyObject;
  publicKey?: KeyObject;
  merchantId?: string;
}

/** A checkpoint over this chain at `seq` and two others. */
function checkpointAt(
  events: readonly AuditEvent[],
  seq: number,
  facts: CheckpointFacts = {},
): ProvenCheckpoint {
  const { number = 7, previous = hex('before'), origin = 'main', merchantId = CHAIN } = facts;
  const leaf = { merchantId, seq, hash: events[seq - 1]?.hash ?? ZEROS, salt: hex(`salt ${String(number)}`) };
  const own = leafHash(leaf);
  const others = [hash('x').digest(), hash('y').digest()];
  const sorted = [own, ...others].sort((a, b) => a.compare(b));
  const index = sorted.indexOf(own);
  const [one, two, three] = sorted as [Buffer, Buffer, Buffer];
  const node = (left: Buffer, right: Buffer) =>
    createHash('sha256')
      .update(Buffer.concat([Buffer.from([1]), left, right]))
      .digest();
  const path = index === 2 ? [node(one, two)] : [index === 0 ? two : one, three];
  const body = JSON.stringify({
    format: 'mbk-checkpoint-v1',
    origin,
    number,
    at: '2026-11-21T12:00:00.000Z',
    chains: 3,
    root: rootOf(sorted)?.toString('hex'),
    previous,
  });
  const keyId = 'arn:aws:kms:us-east-1:900000000001:key/x';
  const signature = sign('sha256', messageOf({ body, keyId }), facts.key ?? keys.privateKey).toString(
    'base64',
  );
  return {
    body,
    signature,
    keyId,
    publicKey: toPem(facts.publicKey ?? keys.publicKey),
    leaf: { ...leaf, index, path: path.map((one) => one.toString('hex')) },
  };
}

async function exportOf(
  events: readonly AuditEvent[],
  checkpoint?: ProvenCheckpoint,
  { from = 1, to = events.length } = {},
): Promise<string[]> {
  const page = (_chain: MerchantId, after: number, limit: number) =>
    Promise.resolve({ events: events.slice(after, after + limit), head: undefined });
  let text = '';
  for await (const piece of auditExport({ page }, { chain: CHAIN, from, to }, checkpoint)) text += piece;
  expect(text.endsWith('\n')).toBe(true);
  return text.slice(0, -1).split('\n');
}

interface Given {
  kept?: ProvenCheckpoint[];
  from?: number;
}

function faultOf(lines: readonly string[], given: Given = {}) {
  const verifier = new ExportVerifier({ keys: [keys.publicKey], ...given });
  for (const line of lines) {
    const fault = verifier.line(line);
    if (fault !== undefined) return fault;
  }
  return verifier.end();
}

/** An error is no finding: who changed the file would have made it unreadable, and no more. */
function isFound(lines: readonly string[]): boolean {
  try {
    return faultOf(lines) !== undefined;
  } catch {
    return false;
  }
}

const LENGTH = 24;
const chain = newChain(LENGTH);
const newest = checkpointAt(chain, LENGTH);

/** Numbers from a seed, the same on every machine (mulberry32). */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

/** A text that differs in one place. */
function edited(text: string, pick: (below: number) => number): string {
  const at = pick(text.length + 1);
  const letter = 'abcdef0123456789 "}\\é'.charAt(pick(21));
  const ways = [
    text.slice(0, at) + letter + text.slice(at),
    text.slice(0, at) + text.slice(at + 1),
    text.slice(0, at) + letter + text.slice(at + 1),
  ];
  return ways[pick(3)] ?? text;
}

/** Makes every number, link and hash from `index` on right, as the best forger would. */
function rehash(events: AuditEvent[], index: number): void {
  for (let at = index; at < events.length; at += 1) {
    const event = events[at] as AuditEvent;
    event.seq = at + 1;
    event.prevHash = events[at - 1]?.hash ?? ZEROS;
    event.hash = hashOf(event);
  }
}

const FIELDS = [
  'merchantId',
  'atMicros',
  'at',
  'actor',
  'action',
  'resource',
  'outcome',
  'requestId',
  'body',
  'prevHash',
  'hash',
] as const;

type Mutation = (lines: string[], pick: (below: number) => number) => string[] | Promise<string[]>;

/** With the chain made right again, and a last line that fits: only the signature can tell. */
const forged =
  (change: (events: AuditEvent[], at: number, pick: (below: number) => number) => void): Mutation =>
  (lines, pick) => {
    const events = lines.slice(0, -1).map((line) => JSON.parse(line) as AuditEvent);
    const at = pick(events.length);
    change(events, at, pick);
    rehash(events, at);
    return exportOf(events, newest);
  };

const MUTATIONS: Record<string, Mutation> = {
  'a byte of any line': (lines, pick) => {
    const at = pick(lines.length);
    return lines.map((line, index) => (index === at ? edited(line, pick) : line));
  },
  'a field of an event': (lines, pick) => {
    const at = pick(lines.length - 1);
    const event = JSON.parse(lines[at] ?? '') as AuditEvent;
    const field = FIELDS[pick(FIELDS.length)] ?? 'actor';
    const changed = { ...event, [field]: edited(event[field], pick) };
    return lines.map((line, index) => (index === at ? JSON.stringify(changed) : line));
  },
  'a field of an event, with its hash': (lines, pick) => {
    const at = pick(lines.length - 1);
    const event = JSON.parse(lines[at] ?? '') as AuditEvent;
    event[FIELDS[pick(9)] ?? 'actor'] += 'x';
    return lines.map((line, index) =>
      index === at ? JSON.stringify({ ...event, hash: hashOf(event) }) : line,
    );
  },
  'the number of an event': (lines, pick) => {
    const at = pick(lines.length - 1);
    const event = JSON.parse(lines[at] ?? '') as AuditEvent;
    const changed = { ...event, seq: pick(60) - 10 };
    return lines.map((line, index) => (index === at ? JSON.stringify(changed) : line));
  },
  'a field of the last line': (lines, pick) => {
    const end = JSON.parse(lines.at(-1) ?? '') as Record<string, unknown> & { checkpoint: ProvenCheckpoint };
    const { checkpoint } = end;
    const holders = [end, checkpoint, checkpoint.leaf] as unknown as Record<string, unknown>[];
    const places = holders.flatMap((holder) =>
      Object.keys(holder).map((name): [Record<string, unknown>, string] => [holder, name]),
    );
    const [holder, name] = places[pick(places.length)] ?? [end, 'to'];
    const value = holder[name];
    holder[name] =
      typeof value === 'string'
        ? edited(value, pick)
        : typeof value === 'number'
          ? value + 1 + pick(3)
          : Array.isArray(value)
            ? value.slice(pick(2) + 1)
            : null;
    return [...lines.slice(0, -1), JSON.stringify(end)];
  },
  'an event less': (lines, pick) => lines.toSpliced(pick(lines.length - 1), 1),
  'an event twice': (lines, pick) => {
    const at = pick(lines.length - 1);
    return lines.toSpliced(pick(lines.length), 0, lines[at] ?? '');
  },
  'two events swapped': (lines, pick) => {
    const [a, b] = [pick(lines.length - 1), pick(lines.length - 1)];
    return lines.with(a, lines[b] ?? '').with(b, lines[a] ?? '');
  },
  'a tail less': (lines, pick) => lines.slice(0, pick(lines.length)),
  'a tail less, and a last line that fits': (_lines, pick) => exportOf(chain.slice(0, pick(LENGTH)), newest),
  'a head less, and a last line that fits': (_lines, pick) => {
    const from = pick(LENGTH - 1) + 2;
    return exportOf(chain, newest, { from });
  },
  'an edit, and all after it made right': forged((events, at) => {
    (events[at] as AuditEvent).actor = 'somebody else';
  }),
  'an event less, and all after it made right': forged((events, at) => {
    events.splice(at, 1);
  }),
  'an event more, and all after it made right': forged((events, at) => {
    events.splice(at, 0, { ...(events[at] as AuditEvent), resource: 'call/never' });
  }),
  'two events swapped, and all after them made right': forged((events, at, pick) => {
    const to = pick(events.length);
    const [a, b] = [events[at] as AuditEvent, events[to] as AuditEvent];
    [events[at], events[to]] = [b, a];
    rehash(events, Math.min(at, to));
  }),
  'an end that never was': (_lines, pick) => exportOf(newChain(LENGTH + 1 + pick(5)), newest),
  'another chain, signed by a stranger': (_lines, pick) => {
    const length = 1 + pick(LENGTH);
    const events = newChain(length, (event) => (event.actor = 'nobody'));
    const publicKey = pick(2) === 0 ? keys.publicKey : other.publicKey;
    return exportOf(events, checkpointAt(events, length, { key: other.privateKey, publicKey }));
  },
  'without a checkpoint': () => exportOf(chain),
};

describe('an export', () => {
  test('as it was written holds, whole or in pieces, and says by what', async () => {
    const whole = await exportOf(chain, newest);
    expect(whole).toHaveLength(LENGTH + 1);
    expect(faultOf(whole)).toBeUndefined();
    const verifier = new ExportVerifier({ keys: [keys.publicKey] });
    for (const line of whole) verifier.line(line);
    expect(verifier.summary).toEqual({
      chain: CHAIN,
      from: 1,
      to: LENGTH,
      events: LENGTH,
      checkpoint: 7,
      at: '2026-11-21T12:00:00.000Z',
      origin: 'main',
    });
    const one = await exportOf(chain, newest, { to: 10 });
    const two = await exportOf(chain, newest, { from: 11 });
    expect(faultOf([...one, ...two])).toBeUndefined();
    expect(faultOf(two, { from: 11 })).toBeUndefined();
    // Alone they are not what they might seem.
    expect(faultOf(one)).toMatchObject({ fault: 'head', seq: 10 });
    expect(faultOf(two)).toMatchObject({ fault: 'sequence' });
    expect(faultOf([...two, ...one], { from: 11 })).toMatchObject({ fault: 'sequence' });
  });

  test('of a chain with a gap is not made', async () => {
    await expect(exportOf(chain.toSpliced(8, 1), newest)).rejects.toThrow(/lacks events/);
  });

  test('finds 10,000 random changes: every one', async () => {
    const seed = Number(process.env['MUTATIONS_SEED'] ?? Date.now() % 1_000_000_000);
    const pick = chance(seed);
    const original = await exportOf(chain, newest);
    const text = original.join('\n');
    const names = Object.keys(MUTATIONS);
    let changed = 0;
    const missed: string[] = [];
    for (let round = 0; changed < 10_000 && missed.length === 0; round += 1) {
      const name = names[round % names.length] ?? '';
      const lines = await MUTATIONS[name]?.([...original], pick);
      if (lines === undefined || lines.join('\n') === text) continue;
      changed += 1;
      if (!isFound(lines))
        missed.push(`${name}, MUTATIONS_SEED=${String(seed)}, round ${String(round)}`, ...lines);
    }
    expect(missed).toEqual([]);
    expect(changed).toBe(10_000);
  });

  test('names the first bad event', async () => {
    const lines = await exportOf(chain, newest);
    const event = JSON.parse(lines[8] ?? '') as AuditEvent;
    expect(faultOf(lines.with(8, JSON.stringify({ ...event, actor: 'x' })))).toMatchObject({
      fault: 'hash',
      seq: 9,
    });
    expect(faultOf(lines.toSpliced(8, 1))).toMatchObject({ fault: 'sequence', seq: 10 });
    expect(faultOf(lines.slice(0, 9))).toMatchObject({ fault: 'head', seq: 10 });
    expect(faultOf(await exportOf(chain.slice(0, 9), newest))).toMatchObject({ fault: 'head', seq: 9 });
    expect(faultOf(await exportOf(newChain(LENGTH + 3), newest))).toMatchObject({
      fault: 'unsigned',
      seq: LENGTH + 1,
    });
    expect(faultOf([])).toMatchObject({ fault: 'head' });
    expect(faultOf(['{}', 'x'])).toMatchObject({ fault: 'form' });
    expect(faultOf(['{"merchantId":{"toString":null}}'])).toMatchObject({ fault: 'form' });
  });

  test('does not take half a character for another', async () => {
    const events = newChain(3, (event) => (event.body = '\ufffd'));
    const lines = await exportOf(events, checkpointAt(events, 3));
    expect(faultOf(lines)).toBeUndefined();
    expect(faultOf(lines.map((line) => line.replace('\ufffd', '\\ud800')))).toMatchObject({ fault: 'form' });
  });
});

describe('a checkpoint that was kept', () => {
  const early = checkpointAt(chain, 10, { number: 3, previous: hex('x') });

  test('holds later exports to what it saw', async () => {
    const lines = await exportOf(chain, newest);
    expect(faultOf(lines, { kept: [early] })).toBeUndefined();
    // Everything was rewritten after event 4 and signed again by whoever has the key: only what was kept can tell.
    const rewritten = newChain(LENGTH, (event) => {
      if (event.seq === 5) event.actor = 'somebody else';
    });
    const again = await exportOf(rewritten, checkpointAt(rewritten, LENGTH));
    expect(faultOf(again)).toBeUndefined();
    const first = checkpointAt(chain, 4, { number: 1 });
    expect(faultOf(again, { kept: [first, early] })).toMatchObject({
      fault: 'head',
      seq: 10,
      detail: expect.stringContaining('rewritten after event 4'),
    });
  });

  test('finds an export that ends before it, and one from a time before it', async () => {
    const older = await exportOf(chain.slice(0, 10), early);
    expect(faultOf(older)).toBeUndefined();
    expect(faultOf(older, { kept: [newest] })).toMatchObject({ fault: 'head', seq: 10 });
  });

  test('reaches back to the event before the first', async () => {
    const lines = await exportOf(chain, newest, { from: 11 });
    expect(faultOf(lines, { from: 11, kept: [early] })).toBeUndefined();
    const wrong = checkpointAt(
      newChain(10, (event) => (event.actor = 'x')),
      10,
      { number: 3 },
    );
    expect(faultOf(lines, { from: 11, kept: [wrong] })).toMatchObject({ fault: 'head', seq: 10 });
  });

  test.each<[string, ProvenCheckpoint, string]>([
    [
      'of a stranger',
      checkpointAt(chain, 10, { key: other.privateKey, number: 3 }),
      'its signature does not fit',
    ],
    [
      'of another key',
      checkpointAt(chain, 10, { key: other.privateKey, publicKey: other.publicKey }),
      'it names another public key',
    ],
    [
      'of another chain',
      checkpointAt(chain, 10, { number: 3, merchantId: 'merchant-b' }),
      'it is about another chain',
    ],
    [
      'of another deployment',
      checkpointAt(chain, 10, { number: 3, origin: 'test' }),
      'it is of another deployment',
    ],
    ['with the number of another', checkpointAt(chain, 10), 'there is another one with the number 7'],
    [
      'that the next one does not follow',
      checkpointAt(chain, 10, { number: 6 }),
      'it does not follow from the one before it',
    ],
    [
      'that does not follow from the one before',
      checkpointAt(chain, 10, { number: 8 }),
      'the one after it does not follow from it',
    ],
    [
      'that says otherwise',
      checkpointAt(
        newChain(LENGTH, (event) => (event.actor = 'x')),
        LENGTH,
        { number: 3 },
      ),
      'signed',
    ],
  ])('%s is a fault', async (_name, kept, detail) => {
    const fault = faultOf(await exportOf(chain, newest), { kept: [kept] });
    expect(fault?.detail).toContain(detail);
  });
});

describe('the files of an export', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'verify-export-'));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  function file(bytes: Buffer | string): string {
    const at = path.join(folder, 'one.jsonl');
    writeFileSync(at, bytes);
    return at;
  }

  const check = (bytes: Buffer | string, given: Given = {}) =>
    verifyExports([file(bytes)], { keys: [keys.publicKey], ...given });

  test('hold to the byte: what is no UTF-8 is not taken for what replaces it', async () => {
    const events = newChain(3, (event) => (event.body = '\ufffd'));
    const text = `${(await exportOf(events, checkpointAt(events, 3))).join('\n')}\n`;
    expect((await check(text)).fault).toBeUndefined();
    const sign = Buffer.from('\ufffd');
    const bytes = Buffer.from(text);
    const at = bytes.lastIndexOf(sign);
    const changed = Buffer.concat([
      bytes.subarray(0, at),
      Buffer.from([0xff]),
      bytes.subarray(at + sign.length),
    ]);
    expect(changed.toString('utf8')).toBe(text);
    expect((await check(changed)).fault).toMatchObject({ fault: 'form', seq: 3 });
    expect((await check(`\ufeff${text}`)).fault).toMatchObject({ fault: 'form', seq: 1 });
  });

  test('with a line that is too long are not as they were written', async () => {
    const lines = await exportOf(chain, newest);
    const long = `${lines.slice(0, 5).join('\n')}\n${'x'.repeat(16_000_001)}`;
    expect((await check(long)).fault).toMatchObject({ fault: 'form', seq: 6 });
    expect((await check(`${long}\n`)).fault).toMatchObject({ fault: 'form', seq: 6 });
  });

  test('are not checked against a checkpoint that was kept earlier than they begin, and it is said', async () => {
    const early = checkpointAt(chain, 10, { number: 3, previous: hex('x') });
    const late = `${(await exportOf(chain, newest, { from: 12 })).join('\n')}\n`;
    await expect(check(late, { from: 12, kept: [early] })).rejects.toThrow(/event 10.+event 11/);
    const fitting = `${(await exportOf(chain, newest, { from: 11 })).join('\n')}\n`;
    expect((await check(fitting, { from: 11, kept: [early] })).fault).toBeUndefined();
  });

  test('of checkpoints that are none are refused', () => {
    expect(readSigned([file(JSON.stringify(newest))])).toHaveLength(1);
    const { leaf: _leaf, ...signed } = newest;
    expect(() => readSigned([file(JSON.stringify({ ...signed, body: '{}' }))])).toThrow(
      /is not a checkpoint/,
    );
  });
});
