import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const FOLDER = new URL('../../src', import.meta.url).pathname;

/** The files of src/ that were written by people, each with its text. */
export function sourceFiles(): { file: string; text: string }[] {
  return readdirSync(FOLDER, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.startsWith('generated'))
    .sort()
    .map((file) => ({ file, text: readFileSync(path.join(FOLDER, file), 'utf8') }));
}

/** The files in which a pattern occurs. */
export function findInSource(pattern: RegExp): string[] {
  return sourceFiles()
    .filter(({ text }) => pattern.test(text))
    .map(({ file }) => file);
}
