import { defineConfig } from 'prisma/config';

// `prisma generate` would download a native schema engine it does not need for generating.
// Pointing it at any existing file keeps the install within the npm registry (docs/decisions/0002).
process.env['PRISMA_SCHEMA_ENGINE_BINARY'] ??= process.execPath;

export default defineConfig({ schema: 'prisma/schema.prisma' });
