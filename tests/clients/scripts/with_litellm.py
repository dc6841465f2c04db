"""LiteLLM: rerank by three of its providers, and a chat completion chosen from several."""

import json
import sys

import litellm

asked = json.loads(sys.argv[1])
found = {}
for provider in ("hosted_vllm", "cohere", "huggingface"):
    reply = litellm.rerank(
        model=f"{provider}/prm",
        query=asked["question"],
        documents=asked["answers"],
        api_base=asked["url"],
        api_key=asked["key"],
    )
    found[provider] = {each["index"]: each["relevance_score"] for each in reply.results}
completion = litellm.completion(
    model="openai/any",
    messages=[{"role": "user", "content": asked["question"]}],
    api_base=f"{asked['url']}/v1",
    api_key=asked["key"],
    extra_body={"best_of": 3},
)
found["completion"] = {"text": completion.choices[0].message.content, "scores": completion.prime["scores"]}
print(json.dumps(found))
