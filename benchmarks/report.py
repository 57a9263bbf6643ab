"""Tables and figures from the results of bench.py: `python benchmarks/report.py results.json [figures folder]`."""

import io
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
from cases import BACKWARD, FURTHER_OPERATIONS, OPERATIONS

PEERS = ["PyTorch", "JAX", "ONNX Runtime", "scikit-learn", "SciPy", "NumPy"]
DTYPES = ("float32", "float64", "float16", "bfloat16")
GROUPS = {
    "all operations on all shapes": OPERATIONS,
    "smoothing, probability targets and log_prob": FURTHER_OPERATIONS,
    "the way back": BACKWARD,
}
SHORT = dict(zip(PEERS, ["PT", "JAX", "ORT", "skl", "SciPy", "NumPy"], strict=True))


def ratios(case, peer, ours="csoftmax"):
    """Peer's time over ours, round by round: (rounds,), or None if the peer does not take part."""
    if peer not in case["seconds"]:
        return None
    return np.array(case["seconds"][peer]) / np.array(case["seconds"][ours])


def sides(case, fresh):
    """Our name in the case, and peers with theirs: with out= against out=, or fresh results against fresh.

    Without `fresh` there may be no peers: none that writes into an array, while we can.
    """
    names = [peer for peer in PEERS if peer in case["seconds"]]
    if "csoftmax fresh" not in case["seconds"]:
        return "csoftmax", {} if fresh else {peer: peer for peer in names}
    writes = {
        peer for peer in names if f"{peer} fresh" in case["seconds"] or peer == "scikit-learn"
    }
    if not fresh:
        return "csoftmax", {peer: peer for peer in names if peer in writes}
    theirs = {peer: f"{peer} fresh" if peer in writes else peer for peer in names}
    return "csoftmax fresh", {p: name for p, name in theirs.items() if name in case["seconds"]}


def best_peer(case, fresh=False):
    """Name and median ratio of the peer that comes closest, or is ahead; NumPy's formula counts as one.

    Fresh results also where no peer writes into an array.
    """
    ours, theirs = sides(case, fresh)
    if not theirs:
        ours, theirs = sides(case, True)
    medians = {p: float(np.median(ratios(case, name, ours))) for p, name in theirs.items()}
    name = min(medians, key=medians.get)
    return name, medians[name]


def label(case):
    return " x ".join(f"{n:,}" for n in case["shape"]) + (
        f", axis {case['axis']}" if case["group"] == "other axis" else ""
    )


def title(case):
    return f"{case['operation']} {label(case)} {case['dtype']}"


def parts(results):
    """The cases of the grid, all operations on all shapes, and the further ones."""
    grid = [q for q in results["cases"] if q["operation"] in OPERATIONS]
    return grid, [q for q in results["cases"] if q["operation"] not in OPERATIONS]


def speed(case, name="csoftmax"):
    """GB/s of input for large cases, microseconds for calls that are short."""
    seconds = float(np.median(case["seconds"][name]))
    if case["group"] in ("tiny call", "middle call"):
        return f"{seconds * 1e6:.2f} us"
    return f"{case['bytes'] / seconds / 1e9:.1f}"


def describe(results):
    """Machine, versions and ceilings, in two lines."""
    m, c = results["machine"], results["ceilings"]
    versions = ", ".join(f"{k} {v}" for k, v in m["packages"].items() if v)
    return (
        f"{m['cpu']}, {m['threads']} threads, kernels {m['kernels']}, {m['compiler']}, Python {m['python']},"
        f" {versions}, OMP_WAIT_POLICY {m['OMP_WAIT_POLICY']}, {m['date']}.\n"
        f"Ceilings in the same run, GB/s of input: read {c['read']:.1f}, copy {c['copy']:.1f}, streamed copy"
        f" {c['stream']:.1f}."
    )


def compact_tables(results):
    """The README's tables: for each cell the speed, and the time of the best peer over ours."""
    lines = [describe(results)]
    grid, further = parts(results)
    for cases, dtype in product((grid, further), DTYPES):
        chosen = [q for q in cases if q["dtype"] == dtype]
        if not chosen:
            continue
        operations = list(dict.fromkeys(q["operation"] for q in chosen))
        lines += ["", f"| {dtype} | " + " | ".join(operations) + " |"]
        lines += ["|---|" + "---|" * len(operations)]
        for shape in dict.fromkeys(label(q) for q in chosen):
            row = f"| {shape} |"
            for operation in operations:
                q = next(
                    (q for q in chosen if (label(q), q["operation"]) == (shape, operation)), None
                )
                if q is None:
                    row += " |"
                    continue
                name, ratio = best_peer(q)
                text = f"{ratio:.2f}"
                row += f" {speed(q)}, {f'**{text}**' if ratio < 1 else text} {SHORT[name]} |"
            lines.append(row)
    return "\n".join(lines)


def write_between_marks(path, name, text):
    """Replace what stands in a file between <!-- name --> and <!-- /name -->."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = path.read_text().partition(start)
    tail = rest.partition(end)[2]
    if not found or not rest.count(end):
        raise SystemExit(f"{path} has no marks {start} and {end}")
    path.write_text(f"{head}{start}\n{text}\n{end}{tail}")


def print_tables(results):
    print(describe(results))
    cases = results["cases"]
    for operation, dtype in product(dict.fromkeys(q["operation"] for q in cases), DTYPES):
        chosen = [q for q in cases if (q["operation"], q["dtype"]) == (operation, dtype)]
        for fresh in (False, True):
            of_kind = [q for q in chosen if sides(q, fresh)[1]]
            if of_kind:
                print_table(f"{operation}, {dtype}", of_kind, fresh)
    print_summary(results)


def print_table(title, cases, fresh):
    what = title
    if "csoftmax fresh" in cases[0]["seconds"]:
        what += ", fresh results" if fresh else ", results into an array that is there (out=)"
    print(f"\n**{what}**: csoftmax in GB/s of input (calls: us), then each peer's time over ours\n")
    peers = [p for p in PEERS if any(p in sides(q, fresh)[1] for q in cases)]
    print("| shape | csoftmax |" + "".join(f" {p} |" for p in peers))
    print("|---|---|" + "---|" * len(peers))
    for q in cases:
        ours, theirs = sides(q, fresh)
        row = f"| {label(q)} | {speed(q, ours)} |"
        for p in peers:
            if p not in theirs:
                row += " |"
                continue
            low, middle, high = np.percentile(ratios(q, theirs[p], ours), [25, 50, 75])
            cell = f"{middle:.2f} ({low:.2f}-{high:.2f})"
            row += f" **{cell}** |" if middle < 1 else f" {cell} |"
        print(row)


def geometric(values):
    return float(np.exp(np.mean(np.log(values))))


def print_means(cases, cells_of, fresh):
    """Geometric means, and the cells that are lost."""
    cases = [q for q in cases if sides(q, fresh)[1]]
    if not cases:
        return
    cells = [(q, *best_peer(q, fresh)) for q in cases]
    means = [f"best peer {geometric([r for _, _, r in cells]):.2f}"]
    for peer in PEERS:
        found = [(q, *sides(q, fresh)) for q in cases]
        values = [np.median(ratios(q, p[peer], ours)) for q, ours, p in found if peer in p]
        if values:
            means.append(f"{peer} {geometric(values):.2f}")
    print(f"\nGeometric mean over {len(cells)} cells, {cells_of}: {', '.join(means)}")
    losing = sorted(((r, q, name) for q, name, r in cells if r < 1), key=lambda t: t[0])
    print(f"Cells behind the best peer: {len(losing)}")
    for r, q, name in losing:
        print(f"  {r:.2f}  {title(q)} ({name})")


def print_summary(results):
    grid, further = parts(results)
    for name, operations in GROUPS.items():
        cases = [q for q in results["cases"] if q["operation"] in operations]
        arrays = [q for q in cases if "csoftmax fresh" in q["seconds"]]
        print_means(arrays, f"{name}, results into an array", False)
        print_means(arrays, f"{name}, fresh results", True)
        print_means([q for q in cases if q not in arrays], f"{name}, numbers of rows", False)
    print_own_ratios("Smoothed time over plain", further, "csoftmax plain", inverse=True)
    print_own_ratios("One thread's time over that of all", grid, "csoftmax one thread")
    print_own_ratios("Time over that of the last axis", grid, "csoftmax last axis", inverse=True)
    print_own_ratios("logsumexp(out=), its time over that without", grid, "csoftmax out")
    print_own_ratios(
        "The time in float32 over that of halves", results["cases"], "csoftmax float32"
    )
    large = [q for q in results["cases"] if q["bytes"] >= 1 << 25]
    print_own_ratios("Fresh results of 32 MB and more, over out=", large, "csoftmax fresh")
    print_distances([q for q in grid if q["bytes"] >= 1 << 25], results["ceilings"])


def print_own_ratios(text, cases, name, inverse=False):
    """Times of `name` over those of csoftmax as it is called in the table, or the other way round."""
    print(f"{text}:")
    for q in cases:
        r = ratios(q, name)
        if r is not None:
            print(f"  {np.median(1 / r if inverse else r):.2f}  {title(q)}")


def print_distances(cases, ceilings):
    print("Distance to the memory's limit, cases of 32 MB and more:")
    for q in cases:
        if q["group"] != "one long row":
            limit = ceilings["stream" if "csoftmax fresh" in q["seconds"] else "read"]
            rate = q["bytes"] / float(np.median(q["seconds"]["csoftmax"])) / 1e9
            print(f"  {100 * rate / limit:4.0f} %  {title(q)}")


MARKERS = dict(zip(OPERATIONS, "osD^v", strict=True))


def dots(ax, cases, value):
    """A row for each shape, in it a dot for each operation; the order is that of the cases."""
    rows = list(dict.fromkeys(label(q) for q in cases))
    for operation, marker in MARKERS.items():
        chosen = [q for q in cases if q["operation"] == operation]
        heights = [rows.index(label(q)) for q in chosen]
        ax.plot([value(q) for q in chosen], heights, marker, label=operation, ms=5, alpha=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(alpha=0.3)


def save(figure, path):
    """Save as a PNG of 128 colours, which has half the size of one of all colours."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(128).save(path, optimize=True)


def draw_ratios(plt, results, cases, path):
    """How many times as long the fastest of the others takes, of each dtype."""
    dtypes = list(dict.fromkeys(q["dtype"] for q in cases))
    height = 0.27 * len({label(q) for q in cases}) + 1.6
    figure, axes = plt.subplots(
        1,
        len(dtypes),
        figsize=(11, height),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, dtype in zip(axes[0], dtypes, strict=True):
        dots(ax, [q for q in cases if q["dtype"] == dtype], lambda q: best_peer(q)[1])
        ax.axvline(1, color="black", linewidth=1)
        ax.set(
            title=dtype,
            xscale="log",
            xlabel="its time / csoftmax's time: right of 1 csoftmax is faster",
        )
        ax.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
        ax.minorticks_off()
    machine = results["machine"]
    figure.suptitle(
        "How many times as long the fastest other library takes"
        f" ({machine['cpu']}, {machine['threads']} threads, {machine['date']})"
    )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save(figure, path)


def draw_ceiling(plt, results, cases, path):
    """How near the large float32 cases come to the speed of memory."""
    panels = {
        "read": ("reading alone", ("logsumexp", "cross_entropy")),
        "stream": (
            "reading and writing",
            ("softmax", "log_softmax", "cross_entropy_with_grad"),
        ),
    }
    height = 0.27 * len({label(q) for q in cases}) + 1.6
    figure, axes = plt.subplots(1, 2, figsize=(11, height), sharey=True, layout="constrained")
    for ax, (ceiling, (title, operations)) in zip(axes, panels.items(), strict=True):
        chosen = [q for q in cases if q["operation"] in operations]
        dots(ax, chosen, lambda q: q["bytes"] / np.median(q["seconds"]["csoftmax"]) / 1e9)
        limit = results["ceilings"][ceiling]
        ax.axvline(limit, color="black", linestyle="--", linewidth=1)
        ax.set(title=f"{title} (memory's limit: {limit:.0f})", xlim=0)
        ax.set_xlabel("GB/s of input, float32")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save(figure, path)


def draw(results, folder):
    """Both figures, of the grid alone."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    cases = [q for q in parts(results)[0] if q["dtype"] in ("float32", "float64")]
    large = [q for q in cases if q["bytes"] >= 1 << 24 and q["dtype"] == "float32"]
    folder.mkdir(parents=True, exist_ok=True)
    if cases:
        draw_ratios(plt, results, cases, folder / "ratios.png")
    if large:
        draw_ceiling(plt, results, large, folder / "ceiling.png")


if __name__ == "__main__":
    loaded = json.loads(Path(sys.argv[1]).read_text())
    print_tables(loaded)
    if len(sys.argv) > 2:
        draw(loaded, Path(sys.argv[2]))
