import type { RotationRecord, RotationState } from './rotation-state.ts';

type RecordRow = Record<'promotedAt' | 'overlapUntil' | 'endedAt', Date | null> & {
  version: number;
  replaces: number;
  state: string;
  reason: string | null;
  warnings: string[];
  startedAt: Date;
};

/** What a merchant may see of a row. */
export function toRecord(row: RecordRow): RotationRecord {
  const { version, replaces, warnings, startedAt } = row;
  return {
    version,
    replaces,
    warnings,
    startedAt,
    state: row.state as RotationState,
    reason: row.reason ?? undefined,
    promotedAt: row.promotedAt ?? undefined,
    overlapUntil: row.overlapUntil ?? undefined,
    endedAt: row.endedAt ?? undefined,
  };
}
