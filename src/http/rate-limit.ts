/** A limit as draft-ietf-httpapi-ratelimit-headers tells it. Money in nano-USD. */
export interface RateLimit {
  name: string;
  max: number;
  used: number;
  /** Seconds; absent where it never resets. */
  resetSeconds?: number | null | undefined;
}

/** `q` the quota, `r` what remains, `t` seconds to the reset. No header without a limit. */
export function rateLimitHeaders(limits: readonly RateLimit[]): Record<string, string> {
  if (limits.length === 0) return {};
  const item = ({ name, max, used, resetSeconds }: RateLimit) =>
    `"${name}";r=${String(Math.max(0, max - used))}${typeof resetSeconds === 'number' ? `;t=${String(resetSeconds)}` : ''}`;
  return {
    'ratelimit-policy': limits.map(({ name, max }) => `"${name}";q=${String(max)}`).join(', '),
    ratelimit: limits.map(item).join(', '),
  };
}
