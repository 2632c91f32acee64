import { createHash } from 'node:crypto';

/** Hashes of a Merkle tree as in RFC 9162, 2.1: SHA-256, leaves begin with 00, nodes with 01. */
const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);
const LEAF_FORMAT = 'mbk-leaf-v1';

/** A hashed field is its length in bytes (4 bytes, big endian) and its UTF-8 bytes, as audit_field() in prisma/migrations. */
export function field(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Where a chain stood at a checkpoint. `hash` and `salt` are hex of 32 bytes. */
export interface Leaf {
  merchantId: string;
  seq: number;
  hash: string;
  salt: string;
}

/** The twin of audit_leaf(). */
export function leafHash({ merchantId, seq, hash, salt }: Leaf): Buffer {
  return createHash('sha256')
    .update(LEAF)
    .update(LEAF_FORMAT)
    .update(field(merchantId))
    .update(field(String(seq)))
    .update(Buffer.from(salt, 'hex'))
    .update(Buffer.from(hash, 'hex'))
    .digest();
}

/** The twin of audit_salt(). */
export function saltOf(blind: Buffer, merchantId: string): string {
  const chain = createHash('sha256').update(merchantId).digest();
  return createHash('sha256').update(blind).update(chain).digest('hex');
}

function nodeHash(left: Buffer, right: Buffer): Buffer {
  return createHash('sha256').update(NODE).update(left).update(right).digest();
}

/** The root over leaves in the order of a checkpoint: ascending by hash. @param leaves any order, none twice. */
export function rootOf(leaves: readonly Buffer[]): Buffer | undefined {
  let level = [...leaves].sort((a, b) => a.compare(b));
  while (level.length > 1) {
    const above: Buffer[] = [];
    for (let at = 0; at < level.length; at += 2) {
      const [left, right] = [level[at], level[at + 1]];
      if (left !== undefined) above.push(right === undefined ? left : nodeHash(left, right));
    }
    level = above;
  }
  return level[0];
}

/** Where a path from a leaf ends (RFC 9162, 2.1.3.2); undefined when it cannot be one of that place in a tree of that size. */
export function climb(
  leaf: Buffer,
  place: { index: number; size: number },
  path: readonly Buffer[],
): Buffer | undefined {
  let { index } = place;
  let last = place.size - 1;
  let hash = leaf;
  if (index < 0 || index > last) return undefined;
  for (const sibling of path) {
    if (last === 0) return undefined;
    if (index % 2 === 1 || index === last) {
      hash = nodeHash(sibling, hash);
      while (index % 2 === 0 && index !== 0) [index, last] = [half(index), half(last)];
    } else hash = nodeHash(hash, sibling);
    [index, last] = [half(index), half(last)];
  }
  return last === 0 ? hash : undefined;
}

function half(value: number): number {
  return Math.floor(value / 2);
}
