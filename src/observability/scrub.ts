/**
 * The last net before anything is logged: what looks like a secret is replaced, wherever it stands in the text.
 * It is not the defence (that is: log named fields only, never request, response or error objects), it is what catches a mistake.
 */
const SHAPES: readonly [RegExp, string][] = [
  [/\bmb[ko]_(live|test)_[0-9A-Za-z]+/g, 'mb?_[redacted]'],
  [/\b(AKIA|ASIA)[A-Z0-9]{16}\b/g, '$1[redacted]'],
  [/\b(ABSK|bedrock-api-key-)[A-Za-z0-9+/=_-]{8,}/g, '[redacted]'],
  [/\b(Bearer|Basic)\s+[^\s"',]+/gi, '$1 [redacted]'],
  [/\b(Signature|X-Amz-Security-Token|Credential)\s*[=:]\s*[^\s"',&]+/gi, '$1=[redacted]'],
  [/\bey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+/g, '[redacted]'],
  [/[A-Za-z0-9+/=]{40,}/g, '[redacted]'],
];

const LENGTH_MAX = 1_000;

export function scrub(text: string): string {
  let clean = text.length > LENGTH_MAX ? `${text.slice(0, LENGTH_MAX)}…` : text;
  for (const [shape, replacement] of SHAPES) clean = clean.replace(shape, replacement);
  return clean;
}
