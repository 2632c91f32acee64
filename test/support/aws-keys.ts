/** Key pairs of pretended accounts. Shaped like AWS's, known to the stand-in only. */
function key(name: string, accountId: string) {
  return {
    accessKeyId: `AKIA${name.toUpperCase().padEnd(16, '0')}`,
    secretAccessKey: `${name}/secret/`.padEnd(40, 'x'),
    accountId,
    arn: `arn:aws:iam::${accountId}:user/${name}`,
  };
}

export const AWS = {
  service: key('SERVICE', '900000000001'),
  serviceDefault: key('SERVICEDEFAULT', '900000000002'),
  merchantA: key('MERCHANTA', '100000000001'),
  merchantADirect: key('MERCHANTADIRECT', '100000000001'),
  merchantB: key('MERCHANTB', '200000000002'),
} as const;
