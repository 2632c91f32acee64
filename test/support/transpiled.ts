import { mkdtemp, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import type { Metafile } from 'esbuild';

const ROOT = path.join(import.meta.dirname, '../..');
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
/** What it finds beside it. */
const BESIDE = ['node_modules', 'package.json', 'prisma'];

/** Prisma's query compiler is 3 MB of WebAssembly: compiling it a second time, optimized, is for processes that live long. */
const FEW_PASSES = ['--liftoff-only'];

/** What is run by tests in processes of its own. None may import another: a command must stay in the file that is started. */
const ENTRIES = [
  'src/main.ts',
  ...['audit-verify', 'keys', 'migrate', 'onboard', 'operator-key', 'prices', 'retention'].map(
    (name) => `scripts/${name}.ts`,
  ),
];

/**
 * The service and its commands as JavaScript, in a folder laid out as the repository, each with its packages in a few files: a second of CPU
 * once, where loading some eight hundred modules takes each process that tests start half a second more. Whoever asks removes it.
 */
export async function transpile(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'merchant-bedrock-tests-'));
  for (const name of BESIDE) await symlink(path.join(ROOT, name), path.join(folder, name));
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ENTRIES,
    outdir: folder,
    outbase: '.',
    bundle: true,
    // What an import() loads stays apart until it is asked for, and what two commands share is there once.
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    // What packages in CommonJS call.
    banner: {
      js: `import { createRequire as ofNode } from 'node:module'; const require = ofNode(import.meta.url);`,
    },
    metafile: true,
    logLevel: 'error',
  });
  expectWhole(metafile);
  return folder;
}

/** A command that another imports would move to a file of both, and do nothing when it is started. */
function expectWhole({ outputs }: Metafile): void {
  for (const { entryPoint, inputs } of Object.values(outputs)) {
    if (entryPoint !== undefined && ENTRIES.includes(entryPoint) && !(entryPoint in inputs))
      throw new Error(`${entryPoint} is imported by another command; it cannot be started by itself`);
  }
}

/** What Node is told to run, of a file of the repository: transpiled within a run of the tests, else through tsx. */
export function entryOf(file: string): string[] {
  const folder = process.env['TEST_TRANSPILED'];
  if (folder === undefined || !ENTRIES.includes(file)) return ['--import', TSX, path.join(ROOT, file)];
  return [...FEW_PASSES, path.join(folder, file.replace(/\.ts$/, '.js'))];
}
