import { validationError } from '../wire/errors.ts';

const PAGE_DEFAULT = 100;

/** One page by `maxResults` and `nextToken`, as the list operations of Bedrock take them. The token is the offset. */
export function pageOf<T>(
  all: readonly T[],
  query: URLSearchParams,
): { page: T[]; next: { nextToken?: string } } {
  const start = Number(query.get('nextToken') ?? 0);
  const size = Number(query.get('maxResults') ?? PAGE_DEFAULT);
  if (!Number.isInteger(start) || !Number.isInteger(size) || size < 1)
    throw validationError('maxResults or nextToken is invalid.');
  const end = start + size;
  return { page: all.slice(start, end), next: end < all.length ? { nextToken: String(end) } : {} };
}
