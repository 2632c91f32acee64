/** `decimal`: a number written in full, which never goes through a float. */
export type Cell = string | number | null | { decimal: string };

/** What a spreadsheet would take for a formula, or reads past. */
const FORMULA = /^[=+\-@\t\r]/;

/**
 * One record of RFC 4180, with its CRLF. Null is an empty field. Text that a spreadsheet would run as a formula gets a leading apostrophe, so
 * such a cell is not the value itself; numbers are numbers, a negative one included.
 */
export function csvLine(cells: readonly Cell[]): string {
  return `${cells.map(fieldOf).join(',')}\r\n`;
}

function fieldOf(cell: Cell): string {
  if (cell === null) return '';
  if (typeof cell === 'object') return cell.decimal;
  if (typeof cell === 'number') return String(cell);
  const text = FORMULA.test(cell) ? `'${cell}` : cell;
  return quoted(text);
}

/** A field as it stands in a file: in quotes where it must. */
export function quoted(field: string): string {
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

export interface CsvRecord {
  /** Where it begins, from 1. */
  line: number;
  fields: string[];
  /** A quote stands where none may: the rest of the line was skipped. */
  broken: boolean;
}

/** One field and what ends it. In quotes, quotes inside are doubled. */
const FIELD = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|$)/y;
const REST_OF_LINE = /[^\n]*\n?/y;

/** Records of a CSV text; empty lines are none. A byte order mark, which spreadsheets write, is not part of the first field. */
export function readCsv(text: string): CsvRecord[] {
  const records: CsvRecord[] = [];
  let line = 1;
  let at = text.startsWith('\uFEFF') ? 1 : 0;
  while (at < text.length) {
    const { fields, end, broken } = readRecord(text, at);
    if (broken || fields.length > 1 || fields[0] !== '') records.push({ line, fields, broken });
    line += text.slice(at, end).split('\n').length - 1;
    at = end;
  }
  return records;
}

function readRecord(text: string, start: number): { fields: string[]; end: number; broken: boolean } {
  const fields: string[] = [];
  for (let at = start; ; at = FIELD.lastIndex) {
    FIELD.lastIndex = at;
    const match = FIELD.exec(text);
    if (match === null) {
      REST_OF_LINE.lastIndex = at;
      REST_OF_LINE.test(text);
      return { fields, end: REST_OF_LINE.lastIndex, broken: true };
    }
    const [, inQuotes, bare = '', separator] = match;
    fields.push(inQuotes?.replaceAll('""', '"') ?? bare);
    if (separator !== ',') return { fields, end: FIELD.lastIndex, broken: false };
  }
}
