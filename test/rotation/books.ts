import type { Citizen, Key, Town } from './town.ts';

/** How long a request that was admitted with a version may take to AWS after that version was shredded. Milliseconds. */
const ON_THE_WAY_MS = 2_000;

export interface Books {
  byCurrent: number;
  byOverlap: number;
  /** Second tries: rows that are void because AWS did not know the key. */
  voided: number;
  /** Requests at AWS that were signed by a version which had been shredded. */
  byRetired: number;
  faults: string[];
}

/** Holds the ledger and AWS's journal against what the versions say of themselves. All times but the journal's are the database's. */
export async function readBooks(
  town: Town,
  citizens: readonly Citizen[],
  keys: ReadonlyMap<string, Key>,
): Promise<Books> {
  const faults: string[] = [];
  const ids = citizens.map(({ credentialId }) => credentialId);
  const { rows: versions } = await town.admin.query<VersionRow>(
    `SELECT v.credential_id, v.version, v.state, v.wrapped_key IS NULL AS shredded, extract(epoch FROM v.destroyed_at)::float8 * 1000 AS destroyed_ms,
       coalesce(v.key_hint, c.key_hint) AS hint
     FROM credential_versions v JOIN credentials c ON c.id = v.credential_id WHERE v.credential_id = ANY ($1)`,
    [ids],
  );
  for (const id of ids)
    faults.push(
      ...versionFaults(
        versions.filter((row) => row.credential_id === id),
        id,
      ),
    );
  const { rows: calls } = await town.admin.query<{ state: string; overlap: boolean; count: string }>(
    `SELECT c.state, EXISTS (SELECT 1 FROM credential_rotations r WHERE r.credential_id = c.credential_id AND r.replaces = c.credential_version
        AND r.promoted_at <= c.created_at AND (r.state <> 'rolled-back' OR r.ended_at > c.created_at)) AS overlap, count(*) AS count
     FROM calls c WHERE c.credential_id = ANY ($1) GROUP BY 1, 2`,
    [ids],
  );
  const count = (wanted: (row: { state: string; overlap: boolean }) => boolean) =>
    calls.filter(wanted).reduce((sum, row) => sum + Number(row.count), 0);
  return {
    byCurrent: count(({ state, overlap }) => state !== 'void' && !overlap),
    byOverlap: count(({ state, overlap }) => state !== 'void' && overlap),
    voided: count(({ state }) => state === 'void'),
    byRetired: lateSigners(town, versions, keys),
    faults,
  };
}

interface VersionRow {
  credential_id: string;
  version: number;
  state: string;
  shredded: boolean;
  destroyed_ms: number | null;
  hint: string;
}

function versionFaults(rows: readonly VersionRow[], id: string): string[] {
  const current = rows.filter(({ state }) => state === 'current');
  const open = rows.filter(({ state, shredded }) => !shredded && state !== 'current' && state !== 'previous');
  return [
    ...(current.length === 1 ? [] : [`${id} has ${String(current.length)} current versions`]),
    ...open.map(({ version, state }) => `${id} version ${String(version)} is ${state} and can be opened`),
  ];
}

function lateSigners(town: Town, versions: readonly VersionRow[], keys: ReadonlyMap<string, Key>): number {
  const ends = new Map<string, number>();
  for (const [accessKeyId] of keys) {
    const hint = `${accessKeyId.slice(0, 4)}…${accessKeyId.slice(-4)}`;
    const row = versions.find((version) => version.hint === hint && version.destroyed_ms !== null);
    if (row?.destroyed_ms != null) ends.set(accessKeyId, row.destroyed_ms);
  }
  return town.standIn.journal.filter(({ service, accessKeyId = '', at }) => {
    const end = ends.get(accessKeyId);
    return service === 'bedrock-runtime' && end !== undefined && Date.parse(at) > end + ON_THE_WAY_MS;
  }).length;
}
