import { mkdir, mkdtemp, readdir, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { transformFile } from '@swc/core';

const ROOT = path.join(import.meta.dirname, '../..');
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
/** What it finds beside it. */
const BESIDE = ['node_modules', 'package.json', 'prisma'];
/** As in jest.config.js. Two of these are younger than SWC's types. */
const OPTIONS = {
  jsc: {
    parser: { syntax: 'typescript', explicitResourceManagement: true },
    target: 'es2022',
    rewriteRelativeImportExtensions: true,
  },
  module: { type: 'es6' },
} as const;

/** What is run by tests in processes of its own. */
const FOLDERS = ['src', 'scripts'];

/**
 * The TypeScript of the service and its commands as JavaScript, in a folder laid out as the repository: half a second of CPU once, where a
 * loader in each process that tests start takes one each time. Whoever asks removes it.
 */
export async function transpile(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'merchant-bedrock-tests-'));
  for (const name of BESIDE) await symlink(path.join(ROOT, name), path.join(folder, name));
  for (const top of FOLDERS) {
    const files = await readdir(path.join(ROOT, top), { recursive: true });
    await Promise.all(
      files
        .filter((file) => file.endsWith('.ts'))
        .map(async (file) => {
          const to = path.join(folder, top, file.replace(/\.ts$/, '.js'));
          const { code } = await transformFile(path.join(ROOT, top, file), OPTIONS);
          await mkdir(path.dirname(to), { recursive: true });
          await writeFile(to, code);
        }),
    );
  }
  return folder;
}

/** What Node is told to run, of a file of the repository: transpiled within a run of the tests, else through tsx. */
export function entryOf(file: string): string[] {
  const folder = process.env['TEST_TRANSPILED'];
  if (folder === undefined) return ['--import', TSX, path.join(ROOT, file)];
  return [path.join(folder, file.replace(/\.ts$/, '.js'))];
}
