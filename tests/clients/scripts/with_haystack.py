"""Haystack's rankers of Cohere and of text-embeddings-inference."""

import json
import sys

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

asked = json.loads(sys.argv[1])
key = Secret.from_token(asked["key"])
rankers = {
    "cohere": CohereRanker(api_key=key, api_base_url=asked["url"]),
    "tei": HuggingFaceTEIRanker(url=asked["url"], token=key),
    "tei_raw": HuggingFaceTEIRanker(url=asked["url"], token=key, raw_scores=True),
}
found = {}
for name, ranker in rankers.items():
    documents = [Document(id=str(index), content=answer) for index, answer in enumerate(asked["answers"])]
    ranked = ranker.run(query=asked["question"], documents=documents)["documents"]
    found[name] = {each.id: each.score for each in ranked}
print(json.dumps(found))
