/** What a webhook can be told of: `alert.` and the kind of an alert about limits, and the one kind that is about something else. */
export const ALERT_EVENTS = [
  'alert.threshold',
  'alert.forecast',
  'alert.overrun',
  'credential.rotation_due',
] as const;
export type AlertEvent = (typeof ALERT_EVENTS)[number];

export const ALERT_KINDS = ['threshold', 'forecast', 'overrun', 'rotation'] as const;

/**
 * A limit that is nearly used up, will be, or was passed by a call that cost more than its bound; or a stored key that is due to be exchanged
 * (`rotation`). Money in nano-USD, for a rotation days.
 */
export interface Alert {
  id: string;
  kind: (typeof ALERT_KINDS)[number];
  scope: string;
  /** The API key or end user, for a rotation the credential; null for the merchant's own limits. */
  scopeId: string | null;
  limit: string;
  /** Beginning of the limit's period; for an overrun of the call, for a rotation of the credential's current version. */
  periodStartsAt: string;
  /** The threshold that was reached; for a rotation 100 (due) or 120 (overdue). */
  percent: number;
  /** For a forecast: what is foreseen at the end of the period. */
  used: number;
  max: number | null;
  callId: string | null;
  createdAt: string;
}
