"""reward_hub's HTTP client, with the messages that its model for Qwen2.5-Math-PRM sends to vLLM's /pooling.

The model itself loads a tokenizer from the Hub, which it does not use. The client's module is loaded from its file:
the package imports torch and transformers for models of its own process, and the client needs neither.
"""

import importlib.util
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

asked = json.loads(sys.argv[1])
package = importlib.util.find_spec("reward_hub")
sys.path.append(str(Path(package.submodule_search_locations[0]) / "openai"))
vllm_client = importlib.import_module("vllm_client")

address = urlsplit(asked["url"])
client = vllm_client.HTTPClient(host=address.hostname, port=address.port, model_name="Qwen/Qwen2.5-Math-PRM-7B")
conversations = [
    [
        {"role": "system", "content": asked["system"]},
        {"role": "user", "content": asked["question"]},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    for steps in asked["steps"]
]
replies = client.post_reward_requests(conversations)
print(json.dumps([[row[-1] for row in reply["data"][0]["data"]] for reply in replies]))
