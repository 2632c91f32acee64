import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import { askHidden } from './prompt.ts';
import type { Terminal } from './prompt.ts';
import { UsageError } from './usage-error.ts';

/** The document that --secrets-stdin and --secrets-fd read. */
const document = z.strictObject({
  operatorToken: z.string().min(1).optional(),
  awsAccessKeyId: z.string().min(1).optional(),
  awsSecretAccessKey: z.string().min(1).optional(),
  awsSessionToken: z.string().min(1).optional(),
  bedrockApiKey: z.string().min(1).optional(),
});
export type SecretsDocument = z.infer<typeof document>;
export type SecretName = keyof SecretsDocument;

const QUESTIONS: Readonly<Record<SecretName, string>> = {
  operatorToken: 'Operator token (mbo_…)',
  awsAccessKeyId: 'AWS access key id',
  awsSecretAccessKey: 'AWS secret access key',
  awsSessionToken: 'AWS session token',
  bedrockApiKey: 'Bedrock API key',
};
const BYTES_MAX = 65_536;

export interface SecretSource {
  stdin: boolean;
  fd: number | undefined;
  terminal: Terminal;
  standardInput: Readable;
}

/**
 * Takes the secrets that are needed from where the caller said: a JSON document, or one hidden question each.
 * @throws UsageError (never with a value in it) | Interrupted
 */
export async function readSecrets(
  wanted: readonly SecretName[],
  source: SecretSource,
): Promise<SecretsDocument> {
  if (source.stdin || source.fd !== undefined) {
    const stream =
      source.fd === undefined
        ? source.standardInput
        : createReadStream('', { fd: source.fd, autoClose: false });
    const given = parseDocument(await readAll(stream));
    const missing = wanted.filter((name) => name !== 'awsSessionToken' && given[name] === undefined);
    if (missing.length > 0)
      throw new UsageError(missing.map((name) => `The secrets document lacks "${name}".`));
    return given;
  }
  if (!source.terminal.input.isTTY) {
    throw new UsageError([
      'There is no terminal to ask on. Give the secrets as JSON with --secrets-stdin or --secrets-fd N; see --help.',
    ]);
  }
  const answers: SecretsDocument = {};
  for (const name of wanted) {
    // Only temporary keys have a session token.
    if (name === 'awsSessionToken' && answers.awsAccessKeyId?.startsWith('ASIA') !== true) continue;
    const answer = await askHidden(QUESTIONS[name], source.terminal);
    if (answer === '') throw new UsageError([`${QUESTIONS[name]} was left empty.`]);
    answers[name] = answer;
  }
  return answers;
}

async function readAll(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of stream) {
      const bytes = Buffer.from(chunk as Uint8Array);
      length += bytes.length;
      if (length > BYTES_MAX)
        throw new UsageError([`The secrets document is larger than ${String(BYTES_MAX)} bytes.`]);
      chunks.push(bytes);
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(['The secrets cannot be read: the file descriptor is not open for reading.']);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseDocument(text: string): SecretsDocument {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // V8's message quotes the text.
    throw new UsageError([
      'The secrets are no JSON. Expected an object such as {"awsAccessKeyId": "…", "awsSecretAccessKey": "…"}.',
    ]);
  }
  const parsed = document.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new UsageError([
    `The secrets document may hold only these names, each with text: ${Object.keys(document.shape).join(', ')}.`,
  ]);
}
