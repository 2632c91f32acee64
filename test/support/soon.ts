/** What the work comes to; undefined when that takes too long: what hangs is then an expectation that was not met, and not a test without an end. */
export function soon<T>(work: Promise<T>, limitMs = 5_000): Promise<T | undefined> {
  const late = new Promise<undefined>((resolve) => {
    setTimeout(() => {
      resolve(undefined);
    }, limitMs).unref();
  });
  return Promise.race([work, late]);
}
