/** `decimal`: a number written in full, which never goes through a float. */
export type Cell = string | number | null | { decimal: string };

/** What a spreadsheet would take for a formula, or reads past. */
const FORMULA = /^[=+\-@\t\r]/;
const NEEDS_QUOTES = /[",\r\n]/;

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
  return NEEDS_QUOTES.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
