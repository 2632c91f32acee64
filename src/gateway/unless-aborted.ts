/** What `work` comes to, or `late` when the signal comes first; `work` is then left alone, and its failure is nobody's. */
export function unlessAborted<T>(signal: AbortSignal, work: Promise<T>, late: T): Promise<T> {
  const aborted = new Promise<T>((resolve) => {
    const end = () => {
      resolve(late);
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
  return Promise.race([work, aborted]);
}
