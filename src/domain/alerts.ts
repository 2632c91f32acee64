/** What a webhook can be told of. The names are `alert.` and the kind of the alert. */
export const ALERT_EVENTS = ['alert.threshold', 'alert.forecast', 'alert.overrun'] as const;
export type AlertEvent = (typeof ALERT_EVENTS)[number];

/** A limit that is nearly used up, will be, or was passed by a call that cost more than its bound. Money in nano-USD. */
export interface Alert {
  id: string;
  kind: 'threshold' | 'forecast' | 'overrun';
  scope: string;
  /** The API key or end user; null for the merchant's own limits. */
  scopeId: string | null;
  limit: string;
  /** Beginning of the limit's period; for an overrun of the call. */
  periodStartsAt: string;
  /** The threshold that was reached. */
  percent: number;
  /** For a forecast: what is foreseen at the end of the period. */
  used: number;
  max: number | null;
  callId: string | null;
  createdAt: string;
}
