"""LlamaIndex's rerankers of Cohere and of text-embeddings-inference, as postprocessors of retrieved nodes."""

import json
import sys

from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

asked = json.loads(sys.argv[1])
count = len(asked["answers"])
postprocessors = {
    "cohere": CohereRerank(top_n=count, api_key=asked["key"], base_url=asked["url"]),
    "tei": TextEmbeddingInference(top_n=count, base_url=asked["url"], auth_token=f"Bearer {asked['key']}"),
}
found = {}
for name, postprocessor in postprocessors.items():
    nodes = [NodeWithScore(node=TextNode(id_=str(index), text=answer)) for index, answer in enumerate(asked["answers"])]
    ranked = postprocessor.postprocess_nodes(nodes, query_str=asked["question"])
    found[name] = {each.node.node_id: each.score for each in ranked}
print(json.dumps(found))
