import type { PolicyDocument } from './trust-policy.ts';

/** A role as a merchant is to make it. */
export interface RoleTemplate {
  roleName: string;
  trustPolicy: PolicyDocument;
  permissionPolicy: PolicyDocument;
}

/** As long as a session may be where one role assumes another; IAM's own default, said so that nobody lowers it. */
const SESSION_SECONDS = 3_600;
const POLICY_NAME = 'bedrock';

/** Both documents, as `aws iam create-role` and `put-role-policy` take them. */
export function jsonTemplate({ roleName, trustPolicy, permissionPolicy }: RoleTemplate): string {
  return `${pretty({ roleName, trustPolicy, permissionPolicy })}\n`;
}

export function terraformTemplate({ roleName, trustPolicy, permissionPolicy }: RoleTemplate): string {
  return `resource "aws_iam_role" "merchant_bedrock" {
  name                 = "${roleName}"
  max_session_duration = ${String(SESSION_SECONDS)}

  assume_role_policy = jsonencode(${hcl(trustPolicy)})
}

resource "aws_iam_role_policy" "merchant_bedrock" {
  name = "${POLICY_NAME}"
  role = aws_iam_role.merchant_bedrock.id

  policy = jsonencode(${hcl(permissionPolicy)})
}

output "role_arn" {
  value = aws_iam_role.merchant_bedrock.arn
}
`;
}

/** JSON is YAML, so the documents stand in it as they are. */
export function cloudFormationTemplate({ roleName, trustPolicy, permissionPolicy }: RoleTemplate): string {
  return `AWSTemplateFormatVersion: '2010-09-09'
Description: The role through which merchant-bedrock calls Amazon Bedrock in this account
Resources:
  MerchantBedrockRole:
    Type: AWS::IAM::Role
    Properties:
      RoleName: ${roleName}
      MaxSessionDuration: ${String(SESSION_SECONDS)}
      AssumeRolePolicyDocument:
${indented(pretty(trustPolicy), 8)}
      Policies:
        - PolicyName: ${POLICY_NAME}
          PolicyDocument:
${indented(pretty(permissionPolicy), 12)}
Outputs:
  RoleArn:
    Value: !GetAtt MerchantBedrockRole.Arn
`;
}

/** JSON is an HCL expression too, once the marks that begin its templates are doubled. In the text of a replacement `$$` would be one `$`. */
function hcl(document: PolicyDocument): string {
  return indented(pretty(document), 2)
    .trimStart()
    .replaceAll('${', () => '$${')
    .replaceAll('%{', '%%{');
}

function pretty(value: object): string {
  return JSON.stringify(value, undefined, 2);
}

function indented(text: string, spaces: number): string {
  return text.replace(/^/gm, ' '.repeat(spaces));
}
