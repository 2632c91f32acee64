/** Writes what is derived from the code: .env.example and docs/openapi.json. A test holds both equal to it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { envExample } from '../src/config/example.ts';
import { openApiDocument } from '../src/http/openapi.ts';
import { ROUTES } from '../src/http/routes.ts';

const root = path.join(import.meta.dirname, '..');
mkdirSync(path.join(root, 'docs'), { recursive: true });
writeFileSync(path.join(root, '.env.example'), envExample());
writeFileSync(path.join(root, 'docs/openapi.json'), `${JSON.stringify(openApiDocument(ROUTES), null, 2)}\n`);
console.log('wrote .env.example and docs/openapi.json');
