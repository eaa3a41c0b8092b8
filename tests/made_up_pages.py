"""Made-up runs for the pages: what a predictor could have done, without one."""

import torch

from xlm_mlm.history.trace import Trace

MASK = 0
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.hacked = 1'>",
    "]]>",
    "&lt;b&gt;",
    "${window.hacked = 1}",
    "\u2028",
    "\ud800",
    "\x00",
    "\x1b[31m",
    "\u202eabc",
    "\u0301",
    " \n\t\r",
    "",
    "\\n",
    '"',
    "x" * 3000,
]


def made_up(
    texts, final, given, passes, *, k=4, window=None, fid="made-up", mask_known=True, seed=0
):
    """A run over `texts` (the mask's first) that ends in `final`, from the places `given`."""
    generator = torch.Generator().manual_seed(seed)
    final = torch.tensor(final)
    before = torch.full_like(final, MASK)
    before[given] = final[given]
    k = min(k, len(texts))
    hidden = (before == MASK).nonzero().flatten()
    order = hidden[torch.randperm(len(hidden), generator=generator)]
    x, rows = before, []
    for places in order.tensor_split(passes) if passes else ():
        masked = x == MASK
        x = x.clone()
        x[places] = final[places]
        logits = 4 * torch.randn(len(x), len(texts), generator=generator)
        logits[:, MASK] = -torch.inf
        rows.append((x, *_top(logits, x, masked, k)))
    return _trace(texts, before, rows, k, window, fid, mask_known)


def _top(logits, x, masked, k):
    spread = logits.softmax(-1)
    p, pids = spread.topk(k)
    entropy = torch.special.entr(spread).sum(-1)
    p[~masked], pids[~masked] = torch.eye(1, k), 0
    pids[~masked, 0] = x[~masked]
    return p, pids, entropy.masked_fill(~masked, torch.nan)


def _trace(texts, before, rows, k, window, fid, mask_known):
    length = len(before)
    empty = (length,), (length, k), (length, k), (length,)
    x, p, pids, entropy = (
        torch.stack([row[i] for row in rows]) if rows else torch.zeros(0, *empty[i])
        for i in range(4)
    )
    last = slice(length - (window or length), None)
    return Trace(
        fid=fid,
        before=before,
        x=x.long(),
        p=p[:, last],
        pids=pids[:, last].long(),
        entropy=entropy[:, last],
        mask_id=MASK if mask_known else None,
        texts=dict(enumerate(texts)),
        finished=bool(rows),
    )


def board(**options):
    solution = [4, 3, 1, 2, 1, 2, 3, 4, 3, 4, 2, 1, 2, 1, 4, 3]
    return made_up(["[MASK]", *"1234"], solution, [0, 5, 10], 6, fid="board", **options)


def words(**options):
    texts = ["[MASK]", "[CLS]", "the", "order", "of", "##s", "\n"]
    return made_up(texts, [1, 2, 3, 5, 4, 2, 6, 3], [0], 4, fid="words", **options)


def hostile():
    places = list(range(1, len(HOSTILE) + 1))
    return made_up(["<mask>", *HOSTILE], places, [1, 8], 5, fid=HOSTILE[0])


def taken_back():
    """A run in which a token is replaced, and another taken back and filled anew."""
    run = words()
    x = run.x.clone()
    x[1, 7], x[2, 7], x[3, 7] = 2, MASK, 4
    x[0, 1], x[1:, 1] = 3, 2
    return Trace(**{**vars_of(run), "x": x, "fid": "taken back"})


def vars_of(trace):
    return {name: getattr(trace, name) for name in trace.__dataclass_fields__}


def large(length=1024, passes=256):
    texts = ["[MASK]", *("w" * (number % 9) + f"{number}" for number in range(1, 64))]
    final = torch.randint(1, len(texts), (length,), generator=torch.Generator().manual_seed(1))
    return made_up(texts, final.tolist(), [], passes, k=5, fid="large")
