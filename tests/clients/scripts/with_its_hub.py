"""its_hub: its best-of-N over answers of the chat route, judged by an outcome reward model that asks /classify."""

import asyncio
import json
import sys

import aiohttp
from its_hub import AbstractOutcomeRewardModel, BestOfN, OpenAICompatibleLanguageModel

asked = json.loads(sys.argv[1])


class Prm(AbstractOutcomeRewardModel):
    """its_hub leaves the reward model to its user."""

    def score(self, messages, **options):
        return asyncio.run(self.ascore(messages, **options))

    async def ascore(self, messages, orchestrator=None, **options):
        headers = {"Authorization": f"Bearer {asked['key']}"}
        async with aiohttp.ClientSession(asked["url"], headers=headers, raise_for_status=True) as session:
            return [await self._score(session, conversation) for conversation in messages]

    async def _score(self, session, conversation):
        body = {"messages": [message.to_dict() for message in conversation], "use_activation": False}
        async with session.post("/classify", json=body) as reply:
            return (await reply.json())["data"][0]["probs"][0]


async def main():
    endpoint = f"{asked['url']}/v1"
    async with OpenAICompatibleLanguageModel(endpoint, api_key=asked["key"], model_name="any") as model:
        result = await BestOfN(Prm()).ainfer(model, asked["question"], budget=3, return_response_only=False)
    responses = [response["content"] for response in result.responses]
    print(json.dumps({"responses": responses, "scores": result.scores, "best": result.the_one["content"]}))


asyncio.run(main())
