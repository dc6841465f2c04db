"""The rerankers library: its API ranker in the words of three providers."""

import json
import sys

from rerankers import Reranker

asked = json.loads(sys.argv[1])
found = {}
for provider in ("cohere", "jina", "text-embeddings-inference"):
    ranker = Reranker("prm", model_type=provider, api_key=asked["key"], url=f"{asked['url']}/v1/rerank", verbose=0)
    ranked = ranker.rank(query=asked["question"], docs=asked["answers"])
    found[provider] = {each.doc_id: each.score for each in ranked}
print(json.dumps(found))
