"""Pretrain the model that ships with scmix, `scmix-mini`, and put it into the package.

    SCMIX_DATA=<folder> python scripts/pretrain_mini.py --out runs/mini

`SCMIX_DATA` names a folder whose `data/` holds the h5ad files of raw counts. The corpora are built
once into `--out`; a run that was interrupted goes on when the same command is given again.

Which files train:
- all but those held out for validation and test (below);
- none with fewer than `MIN_GENES` different genes: informative genes only, which biases ranks
  (`kang_muscat_ctrl_stim`, `pancreas_e15_supercell`, `sie_haber_scdesign2`), or columns that name
  few genes again and again (`lamanno_da_neurons`);
- cells that two files share once: the Kang files by barcode (file with more genes first), others
  by equal counts.
"""

import argparse
import os
from pathlib import Path

import anndata as ad

from scmix import checkpoints, models
from scmix.pretrain import Corpus, Source, build_corpus, train

TEST = ("baron_human_cider", "baron_mouse1", "pbmc3k", "zeisel_cortex_sub")
VALIDATION = ("lung_celllines_scmixology", "bone_marrow_cytosimplex")
MIN_GENES = 2000
FAMILIES = {"kang": "barcode"}  # start of the file name: column of obs that names a cell
LICENCE = "BSD-3-Clause"
BUNDLED = Path(__file__).parents[1] / "src" / "scmix" / "resources" / "scmix-mini"


def main() -> None:
    """Build the corpora, train, and export."""
    options = _options()
    training, validation = _corpora(options.out)
    print(training, validation, sep="\n")
    overrides = {} if options.steps is None else {"steps": options.steps}
    final = train(
        training,
        options.out / "run",
        "scmix-mini",
        validation=validation,
        resume=options.resume,
        checkpoint_every=200,
        licence=LICENCE,
        **overrides,
    )
    if options.export:
        export(final, options.card.read_text("utf-8") if options.card else "")


def export(final: Path, card: str) -> None:
    """Put a trained model into the package, in half precision, with its card."""
    model = models.load(final)
    checkpoints.save(
        BUNDLED,
        model.encoder,
        model.vocabulary,
        recipe=model.manifest["recipe"],
        training_data=model.manifest["training_data"],
        licence=LICENCE,
        card=card,
        dtype="float16",
        overwrite=True,
    )


def _corpora(out: Path) -> tuple[Corpus, Corpus]:
    if "SCMIX_DATA" not in os.environ:
        raise SystemExit("Set SCMIX_DATA to the folder that holds data/*.h5ad.")
    files = sorted((Path(os.environ["SCMIX_DATA"]) / "data").glob("*.h5ad"))
    held_out = [path for path in files if path.stem in VALIDATION]
    used = [path for path in files if path.stem not in {*TEST, *VALIDATION}]
    sizes = {path: _n_genes(path) for path in used}
    used = sorted((p for p in used if sizes[p] >= MIN_GENES), key=lambda p: (-sizes[p], p.name))
    return _corpus(out / "corpus", used), _corpus(out / "validation", held_out)


def _corpus(folder: Path, files: list[Path]) -> Corpus:
    if folder.is_dir():
        return Corpus.open(folder, verify=True)
    return build_corpus([_source(path) for path in files], folder)


def _source(path: Path) -> Source:
    family = next((name for name in FAMILIES if path.stem.startswith(name)), "")
    return Source(path, cell_key=FAMILIES.get(family), family=family)


def _n_genes(path: Path) -> int:
    adata = ad.read_h5ad(path, backed="r")
    adata.file.close()
    return adata.var["ensembl_id"].nunique()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for corpora and run")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--export", action="store_true", help="put the result into the package")
    parser.add_argument("--card", type=Path, help="Markdown file: the model card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
