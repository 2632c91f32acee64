"""An unmodified boto3, configured by environment alone: converse, converse_stream and invoke_model; prints each answer on a line."""
import json
import sys

import boto3

model = sys.argv[1]
client = boto3.client("bedrock-runtime")
messages = [{"role": "user", "content": [{"text": "Count to three, please"}]}]

print(client.converse(modelId=model, messages=messages)["output"]["message"]["content"][0]["text"])

text = ""
for event in client.converse_stream(modelId=model, messages=messages)["stream"]:
    text += event.get("contentBlockDelta", {}).get("delta", {}).get("text", "")
print(text)

body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
print(json.loads(client.invoke_model(modelId=model, body=json.dumps(body))["body"].read())["content"][0]["text"])
