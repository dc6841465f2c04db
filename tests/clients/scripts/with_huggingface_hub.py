"""huggingface_hub's InferenceClient: text classification, a chat completion, and what a server says of itself."""

import json
import sys

from huggingface_hub import InferenceClient

asked = json.loads(sys.argv[1])
chat = InferenceClient(base_url=f"{asked['url']}/v1", api_key=asked["key"])
completion = chat.chat_completion([{"role": "user", "content": asked["question"]}], extra_body={"best_of": 3})
classifier = InferenceClient(model=f"{asked['url']}/predict", token=asked["key"])
server = InferenceClient(model=asked["url"], token=asked["key"], provider="hf-inference")


def classify(function: str | None) -> dict[int, float]:
    # Of a list of one label, as text-embeddings-inference answers one text, the client returns the label.
    labels = [classifier.text_classification(text, function_to_apply=function) for text in asked["rendered"]]
    return {index: label.score for index, label in enumerate(labels)}


print(
    json.dumps(
        {
            "text_classification": classify(None),
            "text_classification_raw": classify("none"),
            "completion": {"text": completion.choices[0].message.content, "scores": completion.prime["scores"]},
            "is_healthy": server.health_check(),
            "model_id": server.get_endpoint_info()["model_id"],
        }
    )
)
