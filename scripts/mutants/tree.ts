import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { mutate } from './mutant.ts';
import type { Mutant } from './mutant.ts';

/** Made by `prisma generate`: what the code imports, but git does not keep. */
const GENERATED = 'src/generated';

/**
 * Copies the sources of the repository, those that are not committed yet too. Packages are linked and not copied.
 * @throws Error when git or the generated client is not there.
 */
export async function copyTree(root: string, target: string): Promise<void> {
  const { stdout } = await promisify(execFile)(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { cwd: root, maxBuffer: 64_000_000 },
  );
  for (const file of stdout.split('\0')) {
    const isThere = file !== '' && (await stat(path.join(root, file)).catch(() => undefined))?.isFile();
    if (isThere === true) await cp(path.join(root, file), path.join(target, file));
  }
  await mkdir(path.join(target, 'src'), { recursive: true });
  await cp(path.join(root, GENERATED), path.join(target, GENERATED), { recursive: true }).catch(
    (cause: unknown) => {
      throw new Error('The generated Prisma client is not there: npm run generate makes it.', { cause });
    },
  );
  await symlink(path.join(root, 'node_modules'), path.join(target, 'node_modules'));
}

/**
 * Breaks one file of a copy for as long as `work` takes.
 * @throws MutantError as `mutate`
 */
export async function withMutant<T>(tree: string, mutant: Mutant, work: () => Promise<T>): Promise<T> {
  const file = path.join(tree, mutant.file);
  const whole = await readFile(file, 'utf8');
  const broken = mutate(whole, mutant);
  try {
    await writeFile(file, broken);
    return await work();
  } finally {
    await writeFile(file, whole);
  }
}
