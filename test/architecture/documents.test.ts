import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { classifyReply, serviceErrorOf } from '../../src/bedrock/aws-errors.ts';
import { AWS_FAILURES } from '../../src/bedrock/aws-failures.ts';
import { envExample } from '../../src/config/example.ts';
import { AUDIT_ACTIONS } from '../../src/domain/audit.ts';
import { ERRORS } from '../../src/domain/error-catalogue.ts';
import { openApiDocument } from '../../src/http/openapi.ts';
import { ROUTES } from '../../src/http/routes.ts';
import { SCHEMA_VERSION } from '../../src/persistence/readiness.ts';

const root = path.join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

describe('documents say what the code does', () => {
  test('.env.example has every setting (npm run docs writes it)', () => {
    expect(read('.env.example')).toBe(envExample());
  });

  test('docs/openapi.json is the table of routes (npm run docs writes it)', () => {
    expect(JSON.parse(read('docs/openapi.json'))).toEqual(
      JSON.parse(JSON.stringify(openApiDocument(ROUTES))),
    );
  });

  test('docs/errors.md explains every error code, with its status, and no other', () => {
    const rows = [...read('docs/errors.md').matchAll(/^\| `([a-z_.0-9]+)`\s*\| (\d{3})\s*\|/gm)].map(
      (match) => `${match[1] ?? ''} ${match[2] ?? ''}`,
    );
    const catalogue = Object.entries(ERRORS).map(([code, { status }]) => `${code} ${String(status)}`);
    expect(rows.sort()).toEqual(catalogue.sort());
  });

  test('docs/errors.md has every failure of AWS as it is mapped, and no other', () => {
    const rows = [
      ...read('docs/errors.md').matchAll(/^\| `(\w+)` \| (\d{3}) \| `([a-z_.]+)` \| (\w+) \| (\w+) \| \S/gm),
    ].map((match) => match.slice(1).join(' '));
    const mapped = Object.entries(AWS_FAILURES).map(([type, { status, code, retry, charged }]) =>
      [type, status, code, retry, charged].join(' '),
    );
    expect(rows).toEqual(mapped);
  });

  test.each(Object.entries(AWS_FAILURES))('%s is answered as the table says', (type, row) => {
    const refusal = classifyReply({
      status: row.status,
      headers: { 'x-amzn-errortype': type },
      body: Buffer.from('{"message":"m"}'),
    });
    expect(refusal.execution).toBe(row.charged === 'no' ? 'refused' : 'unknown');
    const call = { operation: 'invoke', modelId: 'amazon.nova-micro-v1:0', region: 'us-east-1' } as const;
    expect(serviceErrorOf(refusal, { ...call, source: 'stored' }).code).toBe(row.code);
  });

  test('docs/audit.md explains every audit action', () => {
    const text = read('docs/audit.md');
    for (const action of AUDIT_ACTIONS) expect(text).toContain(`\`${action}\``);
  });

  test('the schema version the service waits for is the newest migration', () => {
    const folders = readdirSync(path.join(root, 'prisma/migrations'), { withFileTypes: true }).filter(
      (entry) => entry.isDirectory(),
    );
    expect(
      folders
        .map((folder) => folder.name)
        .sort()
        .at(-1),
    ).toBe(SCHEMA_VERSION);
  });

  test('every npm script that the README names exists', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read('README.md').matchAll(/npm run (?:--silent )?([a-z:-]+)/g)].map(
      (match) => match[1] ?? '',
    );
    expect(named.length).toBeGreaterThan(5);
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
  });

  test('every file that the README and the docs link to exists', () => {
    for (const file of [
      'README.md',
      ...readdirSync(path.join(root, 'docs'))
        .filter((name) => name.endsWith('.md'))
        .map((name) => `docs/${name}`),
    ]) {
      for (const match of read(file).matchAll(/\]\((?!https?:)([^)#]+)/g)) {
        const target = path.join(root, path.dirname(file), match[1] ?? '');
        expect({ file, target, found: exists(target) }).toEqual({ file, target, found: true });
      }
    }
  });
});

describe('the API never gives a secret back', () => {
  test('no reply schema has a place for one, but for what is shown once', () => {
    const shownOnce = new Set([
      'POST /api/ops/merchants',
      'POST /api/merchants/:id/bedrock/api-keys',
      'POST /api/merchants/:id/bedrock/api-keys/:kid/roll',
      'POST /api/merchants/:id/bedrock/initialize',
      'POST /api/merchants/:id/bedrock/webhooks',
    ]);
    const document = openApiDocument(ROUTES) as {
      paths: Record<string, Record<string, { responses: object }>>;
    };
    for (const route of ROUTES) {
      if (shownOnce.has(`${route.method} ${route.path}`)) continue;
      const operation =
        document.paths[route.path.replace(/[:*](\w+)/g, '{$1}')]?.[route.method.toLowerCase()];
      const names = [...propertyNames(operation?.responses)];
      expect(
        names.filter((name) => /secret|session|token$|password|wrappedKey|apiKey$|accessKey/i.test(name)),
      ).toEqual([]);
    }
  });
});

/** Every name of a member, anywhere in a JSON schema. */
function* propertyNames(schema: unknown): Generator<string> {
  if (typeof schema !== 'object' || schema === null) return;
  for (const [key, value] of Object.entries(schema)) {
    if (key === 'properties') yield* Object.keys(value as object);
    yield* propertyNames(value);
  }
}

function exists(target: string): boolean {
  try {
    readdirSync(path.dirname(target));
    return readdirSync(path.dirname(target)).includes(path.basename(target));
  } catch {
    return false;
  }
}
