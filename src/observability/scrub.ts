/**
 * The last net before anything is logged: what looks like a secret is replaced, wherever it stands in the text.
 * It is not the defence (that is: log named fields only, never request, response or error objects), it is what catches a mistake.
 */
const NAMED: readonly [RegExp, string][] = [
  [/mb[ko]_(live|test)_[0-9A-Za-z]+/g, 'mb?_[redacted]'],
  [/(AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])/g, '$1[redacted]'],
  [/(ABSK|bedrock-api-key-)[A-Za-z0-9+/=_-]{8,}/g, '[redacted]'],
  [/\b(Bearer|Basic)(?:\s|%20|\+)+[^\s"',\\]+/gi, '$1 [redacted]'],
  [/\b(Signature|X-Amz-Security-Token|Credential)\s*[=:]\s*[^\s"',&\\]+/gi, '$1=[redacted]'],
  [/\bey[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_.-]+/g, '[redacted]'],
];
/** After the runs: a part of a run that was replaced would cut it into pieces too short to be noticed. */
const UNNAMED: readonly [RegExp, string][] = [
  // The beginnings of an access key id and of our tokens in base64, at each of its three positions.
  [
    /(?:QUtJQ|QVNJQ|BS0lB|BU0lB|FLSU|FTSU|bWJrX|bWJvX|1ia1|1ib1|tYmtf|tYm9f)[A-Za-z0-9+/=_-]{16,}/g,
    '[redacted]',
  ],
  [/[A-Za-z0-9+/=]{40,}/g, '[redacted]'],
];
/** A run that may be one secret, percent-encoded, in base64url or with escapes of JSON in it. Linear: each alternative begins differently. */
const RUN = /(?:[A-Za-z0-9+/=_-]|%[0-9A-Fa-f]{2}|\\{1,4}(?:u00[0-9A-Fa-f]{2}|\/))+/g;
const RUN_LENGTH_MIN = 40;
/** UUIDs, and ids of credentials and webhooks. */
const IDS = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(?:cred|wh)_[0-9A-Za-z]{22}\b/g;

const LENGTH_MAX = 1_000;

/** One text. What is longer than a thousand characters is cut, and not before: the half of a secret has no shape. */
export function scrub(text: string): string {
  const clean = replaceShapes(text);
  return clean.length > LENGTH_MAX ? `${clean.slice(0, LENGTH_MAX)}…` : clean;
}

/** A line of JSON as it is about to be written: its texts as they are once their escapes are undone, and then the line itself. */
export function scrubLine(line: string): string {
  const plain = line.includes('\\') ? scrubTexts(line) : line;
  return replaceShapes(plain);
}

function scrubTexts(line: string): string {
  try {
    const scrubbed = JSON.stringify(
      JSON.parse(line, (_name, value: unknown) => (typeof value === 'string' ? replaceShapes(value) : value)),
    );
    return line.endsWith('\n') ? `${scrubbed}\n` : scrubbed;
  } catch {
    return line;
  }
}

function replaceShapes(text: string): string {
  let clean = text;
  for (const [shape, replacement] of NAMED) clean = clean.replace(shape, replacement);
  clean = clean.replace(RUN, (run) => (isLikeASecret(run) ? '[redacted]' : run));
  for (const [shape, replacement] of UNNAMED) clean = clean.replace(shape, replacement);
  return clean;
}

/** Long, and of letters of both cases and digits, as no word, path or id of ours is. */
function isLikeASecret(run: string): boolean {
  if (run.length < RUN_LENGTH_MIN) return false;
  const rest = run.replace(IDS, '');
  return rest.length >= RUN_LENGTH_MIN && /[a-z]/.test(rest) && /[A-Z]/.test(rest) && /[0-9]/.test(rest);
}
