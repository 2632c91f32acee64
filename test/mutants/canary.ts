import type { Mutant } from '../../scripts/mutants/mutant.ts';

/** A hint goes to answers and tables, with whatever is done to the credential. */
const TELLTALE = {
  file: 'src/credentials/material.ts',
  find: 'return accessKeyHint(credential.accessKeyId);',
  replace: 'return `AKIA…${credential.secretAccessKey.reveal()}`;',
};

/** Secrets are found nowhere, whatever is done and whatever fails meanwhile. */
export const CANARY: readonly Mutant[] = [
  {
    name: 'What is shown of a credential tells nothing of its secret.',
    ...TELLTALE,
    test: 'test/server/canary.test.ts',
    testName: 'every route, with everything as it should be',
  },
  {
    name: 'What is kept of a credential tells nothing of its secret, also when something else is down.',
    ...TELLTALE,
    test: 'test/faults/matrix.test.ts',
    testName: 'nothing was said or kept',
  },
  {
    name: 'What is kept of a credential tells nothing of its secret, also while it is rotated and processes die.',
    ...TELLTALE,
    test: 'test/rotation/rotation.test.ts',
  },
  {
    name: 'What is kept of a credential tells nothing of its secret, also while it is revoked.',
    ...TELLTALE,
    test: 'test/server/revocation-races.test.ts',
  },
];
