"""Write the topics of Python's own reference (466 KB of English with 3.11) to a .jsonl file.

They come with every Python as `pydoc_data.topics`, what `help("topics")` shows. One document a
topic. Prints the unigram entropy of the bytes: what a model that knows nothing but how frequent
each byte is would lose, in nats a byte.

    python pydoc_topics.py topics.jsonl
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics


def unigram_entropy(data: bytes) -> float:
    """Entropy of the byte frequencies of `data`, in nats a byte."""
    total = len(data)
    return -sum(n / total * math.log(n / total) for n in Counter(data).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the .jsonl file to write")
    output = parser.parse_args().output
    with output.open("w", encoding="utf-8") as file:
        for name, text in sorted(topics.items()):
            file.write(json.dumps({"topic": name, "text": text}) + "\n")
    data = "".join(topics.values()).encode()
    print(f"{output}: {len(topics)} documents, {len(data)} bytes of text")
    print(f"unigram entropy: {unigram_entropy(data):.3f} nats a byte")


if __name__ == "__main__":
    main()
