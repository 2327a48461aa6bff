"""The kinds of damaged input: what is damaged, how, how it is read and how the result is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import fuzz_mutations
import numpy as np
import yaml
from fuzz_inputs import read_checkpoint, read_cohort, read_lists, read_run, read_store, read_yaml
from fuzz_judges import (
    judge_cohort,
    judge_dataset,
    judge_lists,
    judge_nothing,
    judge_same,
    judge_slice_labels,
    judge_yaml,
)
from fuzz_mutations import damaged, damaged_header, damaged_text, damaged_tree, huge_npy, huge_npz, huge_tiff


class Kind(NamedTuple):
    """One kind of input. `material`: its folder among the sound inputs; `files`: which of them are damaged."""

    material: str
    files: str
    damage: Callable[[bytes, np.random.Generator], bytes]
    read: Callable
    judge: Callable


def packed(damage: Callable) -> Callable:
    """Damage the content of a .gz file, whose stream stays sound."""
    import gzip

    return lambda content, rng: gzip.compress(damage(gzip.decompress(content), rng), 1, mtime=0)


def huge(make: Callable) -> Callable:
    """Whatever was there, replaced by what `make` makes."""
    return lambda content, rng: make(rng)


def huge_nifti(content: bytes, rng: np.random.Generator) -> bytes:
    import gzip

    return fuzz_mutations.huge_nifti(gzip.decompress(content), rng)


def as_yaml(content: bytes, rng: np.random.Generator) -> bytes:
    def write(tree) -> str:
        return yaml.safe_dump(tree, allow_unicode=True)

    return damaged_tree(content, rng, write, yaml.safe_load)


def nested(content: bytes, rng: np.random.Generator) -> bytes:
    """Text that no parser likes: nested without end, aliases of aliases, numbers of 5000 digits."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    axes = "axes: {" + ", ".join(f"x{i}: [1, 2, 3, 4, 5, 6, 7, 8]" for i in range(12)) + "}\n"
    start = "name: x\ncompare: first\nvariants: {}\n"
    texts = [
        "[" * 100_000,
        "{a: " * 20_000,
        '{"a":' * 100_000,
        bomb,
        start + axes,
        start + bomb.replace("a0:", "settings:\n  a0:", 1),
    ]
    texts += [
        "- " * 50_000,
        f"n_fa: {'9' * 5000}",
        "fold: 2001-99-99",
        "? {a: 1}\n: 2",
        "1: 2",
        "a: !!python/object/apply:os.system [x]",
    ]
    return texts[int(rng.integers(len(texts)))].encode()


def damaged_any(content: bytes, rng: np.random.Generator) -> bytes:
    kind = damaged_tree if content[:1] == b"{" else damaged_text if content[:4].isalpha() else damaged
    return kind(content, rng)


def npy(content: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.5:
        return damaged(content, rng, 0, 128)
    shapes = [(2**40, 4, 16, 16), (2**20, 2**10, 2**10, 2**10), (-1, 4, 16, 16), (120,), (120, 4, 256), ()]
    dtype = str(rng.choice(["<f2", "<f4", "|O", "<U9", ">f2", "<c16", "|b1", "|V2"]))
    if rng.random() < 0.15:
        return huge_npy((1,), nested=9000)
    return huge_npy(shapes[int(rng.integers(len(shapes)))], dtype) + content[128:]


NIFTI = "*/*.nii*"
KINDS = {
    "NIfTI header, four sequences": Kind("brats2021", NIFTI, packed(damaged_header), read_cohort, judge_cohort),
    "NIfTI header, one 4D file": Kind("decathlon", NIFTI, packed(damaged_header), read_cohort, judge_cohort),
    "NIfTI header, not packed": Kind("brats2023", NIFTI, damaged_header, read_cohort, judge_cohort),
    "NIfTI header, 4D file without mask": Kind("weak", NIFTI, packed(damaged_header), read_cohort, judge_cohort),
    "gzip stream": Kind("brats2021", NIFTI, damaged, read_cohort, judge_cohort),
    "NIfTI that claims to be huge": Kind("brats2021", NIFTI, huge_nifti, read_cohort, judge_cohort),
    "TIFF": Kind("lgg", "*/*.tif", damaged, read_cohort, judge_cohort),
    "TIFF that claims to be huge": Kind("lgg", "*/*.tif", huge(huge_tiff), read_cohort, judge_cohort),
    "dataset.json": Kind("decathlon", "dataset.json", damaged_tree, read_cohort, judge_dataset),
    "slice_labels.csv": Kind("brats2021", "slice_labels.csv", damaged_text, read_cohort, judge_slice_labels),
    "split lists": Kind("lists", "*.txt", damaged_text, read_lists, judge_lists),
    "scenario": Kind("yaml", "scenario.yaml", as_yaml, read_yaml, judge_yaml),
    "settings": Kind("yaml", "settings.yaml", as_yaml, read_yaml, judge_yaml),
    "YAML without end": Kind("yaml", "scenario.yaml", nested, read_yaml, judge_yaml),
    "JSON without end": Kind("decathlon", "dataset.json", nested, read_cohort, judge_cohort),
    "run record": Kind("run", "*/*.json", damaged_tree, read_run, judge_same),
    "run table": Kind("run", "*/*.csv", damaged_text, read_run, judge_same),
    "run arrays": Kind("run", "*/[ew]*.[ns]*", damaged, read_run, judge_same),
    "store table": Kind("store", "*.json", damaged_tree, read_store, judge_same),
    "store images": Kind("store", "*.npy", damaged, read_store, judge_same),
    "store images' header": Kind("store", "*.npy", npy, read_store, judge_same),
    "checkpoint": Kind("run", "*/checkpoint.pt", damaged, read_checkpoint, judge_same),
    "older run without checksums": Kind("old", "*/*.[cjns]*", damaged_any, read_run, judge_nothing),
    "npz that claims to be huge": Kind("run", "*/examples.npz", huge(huge_npz), read_run, judge_same),
}  # fmt: skip
