import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { PrismaPg } from '@prisma/adapter-pg';
import { bindMigrationAwareSqlAdapterFactory } from '@prisma/driver-adapter-utils';
import pg from 'pg';

interface MigrationFolder {
  path: string;
  migrationFile: { path: string; content: { tag: 'ok'; value: string } };
}

/** The migrations of a folder, by name, which begins with their date. */
export function readMigrations(directory: string): MigrationFolder[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
    .map((name) => ({
      path: name,
      migrationFile: {
        path: 'migration.sql',
        content: { tag: 'ok', value: readFileSync(path.join(directory, name, 'migration.sql'), 'utf8') },
      },
    }));
}

/**
 * Applies what is missing, as `prisma migrate deploy` would and into the same `_prisma_migrations` table, with Prisma's schema engine as
 * WebAssembly: the native engine is a download that closed networks refuse (docs/decisions/0002-prisma-without-engine-download.md).
 * @param adminUrl a login that may create roles and tables.
 * @returns the names of the migrations that were applied now.
 */
export async function applyMigrations(adminUrl: string, prismaDirectory: string): Promise<string[]> {
  const directory = path.join(prismaDirectory, 'migrations');
  await using connections = new EngineConnections(adminUrl);
  const engine = await newSchemaEngine(connections, path.join(prismaDirectory, 'schema.prisma'));
  const result = await engine.applyMigrations({
    migrationsList: {
      baseDir: directory,
      lockfile: { path: 'migration_lock.toml', content: 'provider = "postgresql"\n' },
      shadowDbInitScript: '',
      migrationDirectories: readMigrations(directory),
    },
    filters: { externalTables: [], externalEnums: [] },
  });
  return result.appliedMigrationNames;
}

/** The part of the WebAssembly API that is used here; TypeScript has it only in its DOM library. */
declare const WebAssembly: {
  instantiate(
    bytes: Uint8Array,
    imports: object,
  ): Promise<{ instance: { exports: Record<string, () => void> } }>;
};

async function newSchemaEngine(connections: EngineConnections, schemaFile: string) {
  const engine = await import('@prisma/schema-engine-wasm/schema_engine_bg');
  // Node 20 cannot import .wasm as a module, so the glue is wired by hand.
  const folder = path.dirname(createRequire(import.meta.url).resolve('@prisma/schema-engine-wasm'));
  const { instance } = await WebAssembly.instantiate(
    readFileSync(path.join(folder, 'schema_engine_bg.wasm')),
    {
      './schema_engine_bg.js': withUnrefTimers(engine),
    },
  );
  engine.__wbg_set_wasm(instance.exports);
  instance.exports['__wbindgen_start']?.();
  return engine.SchemaEngine.new(
    { datamodels: [[path.basename(schemaFile), readFileSync(schemaFile, 'utf8')]] },
    () => undefined,
    bindMigrationAwareSqlAdapterFactory(connections.factory),
  );
}

/** The engine arms a lock timeout of ten seconds and never clears it: it must not keep the process. */
function withUnrefTimers(imports: object): object {
  return Object.fromEntries(
    Object.entries(imports).map(([name, value]: [string, unknown]) => {
      if (!name.startsWith('__wbg_setTimeout_')) return [name, value];
      const setTimer = value as (...args: unknown[]) => NodeJS.Timeout;
      return [name, (...args: unknown[]) => setTimer(...args).unref()];
    }),
  );
}

/** The engine opens connections and does not close them; this remembers each, so that the process can end and databases can be copied. */
class EngineConnections implements AsyncDisposable {
  readonly factory: PrismaPg;
  readonly #scripts: pg.Pool;
  readonly #open: { dispose(): Promise<void> }[] = [];

  constructor(adminUrl: string) {
    this.#scripts = new pg.Pool({ connectionString: adminUrl, max: 1, allowExitOnIdle: true });
    this.factory = new PrismaPg({ connectionString: adminUrl, allowExitOnIdle: true });
    const connect = this.factory.connect.bind(this.factory);
    this.factory.connect = async () => {
      const connection = await connect();
      this.#open.push(connection);
      // adapter-pg cuts a script at every ';', which breaks function bodies; Postgres takes a whole script in one simple query.
      return Object.assign(connection, {
        executeScript: async (script: string) => {
          await this.#scripts.query(script);
        },
      });
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scripts.end();
    for (const connection of this.#open) await connection.dispose();
  }
}
