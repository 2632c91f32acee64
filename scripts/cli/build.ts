import { execFile } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

const ROOT = path.join(import.meta.dirname, '../..');
/** What `npm start` runs. */
export const BUILT = path.join(ROOT, 'dist/main.js');

/** Builds when source is newer than the last build. False where it cannot be built: the service then runs from source, which only starts slower. */
export async function buildService(say: (line: string) => void): Promise<boolean> {
  if (existsSync(BUILT) && statSync(BUILT).mtimeMs > newestSource()) return true;
  say('npm run build');
  try {
    await promisify(execFile)('npm', ['run', 'build'], { cwd: ROOT });
    return true;
  } catch {
    say('the build failed: the service runs from source');
    return false;
  }
}

function newestSource(): number {
  const source = path.join(ROOT, 'src');
  return readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .reduce((newest, name) => Math.max(newest, statSync(path.join(source, name)).mtimeMs), 0);
}
