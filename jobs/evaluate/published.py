"""Published figures of the method, to stand beside one's own. None of them was measured by this project."""

from collections.abc import Mapping, Sequence

SOURCE = "PRIME (arXiv 2502.01456), Table 1: greedy, one sample per problem, 4,096 to 8,192 new tokens"
CAVEATS = (
    "Models of 7 B parameters (GPT-4o and Llama apart), each measured once: on AIME one problem is 3.3 points.",
    "Graded by the authors' scripts and asked with their prompts; both differ from ours.",
    "The paper's own tables disagree with each other for the SFT model on MATH-500 (66.2 and 65.1).",
    "LiveCodeBench is release 2 (2023-05-01 to 2024-05-31).",
)
COLUMNS: Mapping[str, str] = {
    "aime24": "AIME 2024",
    "amc": "AMC",
    "math500": "MATH-500",
    "minerva": "Minerva",
    "olympiadbench": "OlympiadBench",
    "leetcode": "LeetCode",
    "livecodebench_v2": "LiveCodeBench",
}
"""By the names of the sets."""
ROWS: Mapping[str, Sequence[float]] = {
    "GPT-4o": (9.3, 45.8, 76.4, 36.8, 43.3, 58.9, 48.8),
    "Llama-3.1-70B-Instruct": (20.0, 37.3, 65.0, 37.1, 30.5, 35.0, 34.4),
    "Qwen2.5-Math-7B-Instruct": (13.3, 50.6, 79.8, 34.6, 40.7, 11.7, 11.3),
    "Eurus-2-7B-SFT": (3.3, 30.1, 66.2, 32.7, 29.8, 21.7, 17.8),
    "RLOO, outcomes only, 240 steps": (20.0, 47.0, 73.2, 36.4, 35.4, 28.3, 26.7),
    "PRIME, 240 steps": (20.0, 50.6, 78.2, 39.3, 40.3, 31.1, 27.5),
    "Eurus-2-7B-PRIME, 592 steps": (26.7, 57.8, 79.2, 38.6, 42.1, 33.3, 28.6),
}
