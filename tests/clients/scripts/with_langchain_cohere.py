"""LangChain's CohereRerank: reranking, and documents compressed to the best ones."""

import json
import sys

from langchain_cohere import CohereRerank
from langchain_core.documents import Document

asked = json.loads(sys.argv[1])
compressor = CohereRerank(
    model="rerank-v3.5", base_url=asked["url"], cohere_api_key=asked["key"], top_n=len(asked["answers"])
)
documents = [Document(page_content=answer, metadata={"index": index}) for index, answer in enumerate(asked["answers"])]
ranked = compressor.rerank(asked["answers"], asked["question"])
compressed = compressor.compress_documents(documents, asked["question"])
print(
    json.dumps(
        {
            "rerank": {each["index"]: each["relevance_score"] for each in ranked},
            "compress": {each.metadata["index"]: each.metadata["relevance_score"] for each in compressed},
        }
    )
)
