import { mkdir, mkdtemp, readdir, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { transformFile } from '@swc/core';

const ROOT = path.join(import.meta.dirname, '../..');
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

/**
 * The TypeScript of the service as JavaScript, in a folder laid out as the repository: half a second of CPU once, where a
 * loader in each process that tests start takes one each time. Whoever asks removes it.
 */
export async function transpile(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'merchant-bedrock-tests-'));
  for (const name of BESIDE) await symlink(path.join(ROOT, name), path.join(folder, name));
  const files = await readdir(path.join(ROOT, 'src'), { recursive: true });
  await Promise.all(
    files
      .filter((file) => file.endsWith('.ts'))
      .map(async (file) => {
        const to = path.join(folder, 'src', file.replace(/\.ts$/, '.js'));
        const { code } = await transformFile(path.join(ROOT, 'src', file), OPTIONS);
        await mkdir(path.dirname(to), { recursive: true });
        await writeFile(to, code);
      }),
  );
  return folder;
}

/** What Node is told to run as the service: transpiled within a run of the tests, else through tsx. */
export function serviceEntry(): string[] {
  const folder = process.env['TEST_TRANSPILED'];
  if (folder === undefined) return ['--import', 'tsx', path.join(ROOT, 'src/main.ts')];
  return [path.join(folder, 'src/main.js')];
}
