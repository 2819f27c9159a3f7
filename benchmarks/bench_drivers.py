"""Perturbation in silico against experiments: a knock-out, and cells treated with interferon.

    SCMIX_DATA=... python benchmarks/bench_drivers.py --out drivers --fine-tune
    python benchmarks/perturbation_page.py --results drivers --out docs/results/perturbation.md

Knock-out: Trem2 is deleted from wild-type microglia. Where does it come among all genes by its
shift towards the knock-out cells, and do the genes whose vectors move when it is deleted change in
the real knock-out? Interferon: genes of the interferon response and others are overexpressed in
untreated monocytes. Do the former move them towards the treated ones? Beside each answer stand
those of simple baselines, on the page that the second command writes. With --fine-tune the
knock-out is done once more with an encoder that learned to tell the two kinds of cells, on half of
them and without the counts of Trem2, and that is asked about the other half. Every step is saved in
the folder <out> and not done again.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from perturbation_page import INTERFERON, mean_effects

import scmix
from scmix import models
from scmix._slots import iter_sequences
from scmix.batches import Sequences, add_special, concat
from scmix.checkpoints import Model
from scmix.effects import Engine, Measure, Plan, Screen
from scmix.inference import prepare, run
from scmix.perturbations import Edit

LAYER, SEED = -2, 0
N_GENES = 512  # read of each cell, to keep the time down


class Cells:
    """Counts of some cells, what the model reads of them, and where their states lie."""

    def __init__(self, adata: ad.AnnData, model: Model, start: str, goal: str) -> None:
        self.adata, self.model = adata, model
        self.state = adata.obs["condition"].astype(str).to_numpy()
        self.start, self.goal = self.state == start, self.state == goal
        room = model.encoder.config.max_position_embeddings
        special = len(model.vocabulary.prefix(0)) + len(model.vocabulary.suffix())
        self.n_genes = min(N_GENES, room - special)
        blocks = list(iter_sequences(adata, model.vocabulary, n_genes=self.n_genes))
        self.sequences = concat([block.sequences for block in blocks])
        self.species = np.concatenate([block.species for block in blocks])
        vectors = self._embedded()
        groups = adata.obs["batch"].astype(str).to_numpy()
        means = {g: vectors[groups == g].mean(axis=0) for g in np.unique(groups)}
        self.centre = np.mean([*means.values()], axis=0)
        unit = (vectors - self.centre) / np.linalg.norm(vectors - self.centre, axis=1)[:, None]
        ends = [unit[side].mean(axis=0) for side in (self.goal, self.start)]
        ends = [end / np.linalg.norm(end) for end in ends]
        self.direction = ends[0] - ends[1]

    def _embedded(self) -> np.ndarray:
        room = self.model.encoder.config.max_position_embeddings
        read = add_special(self.sequences, self.model.vocabulary, self.species, max_length=room)
        return run(
            self.model.encoder,
            read,
            special_ids=self.model.vocabulary.special_ids,
            layer=LAYER,
        )

    def token(self, symbol: str) -> int:
        """Token of a gene."""
        genes = self.model.vocabulary.genes
        species = "human" if self.species[0] == 0 else "mouse"
        found = genes.loc[(genes["symbol"] == symbol) & (genes["species"] == species), "token"]
        return int(found.iloc[0])

    def having(self, token: int, rows: np.ndarray, size: int) -> np.ndarray:
        """Some of the cells that have a gene among those that are read."""
        have = [row for row in rows if token in self.sequences[row][: self.n_genes]]
        return np.random.default_rng(SEED).permutation(have)[:size]

    def screened(self, rows: np.ndarray) -> pd.DataFrame:
        """First-order estimates of deletion: cell, token, effect."""
        cells = self._cut(rows)
        screen = Screen(
            prepare_encoder(self.model),
            self.model.vocabulary,
            self.n_genes,
            self.centre,
            self.direction,
            layer=LAYER,
        )
        effects = [part for _, part in screen.run(cells, self.species[rows])]
        cell = np.repeat(np.arange(len(rows)), cells.lengths)
        return pd.DataFrame(
            {"cell": cell, "token": cells.tokens, "effect": np.concatenate(effects)}
        )

    def exact(
        self, rows: np.ndarray, kind: str, tokens: np.ndarray, *, by_token: bool = False
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Effects of each token's edit: cell, token, effect; and on each other gene: token,
        affected, moved.
        """
        edit = Edit(kind, self.n_genes, readmit=False)
        plan = Plan(edit, self.model.vocabulary.n_tokens, np.asarray(tokens)[:, None])
        engine = Engine(
            prepare_encoder(self.model),
            self.model.vocabulary,
            plan,
            layer=LAYER,
            by_token=by_token,
            centre=self.centre if by_token else None,
        )
        measure = Measure(self.centre, self.direction[None])
        effects, pairs = [], []
        for part in engine.run(self._cut(rows), self.species[rows]):
            changed = part.changed
            _, shift = measure(part.original[changed], part.perturbed[changed])
            number = np.asarray(tokens)[part.number]
            effects.append(
                pd.DataFrame(
                    {"cell": part.cell[changed], "token": number[changed], "effect": shift[:, 0]}
                )
            )
            if by_token:
                columns = {"token": number[part.pair], "affected": part.affected}
                pairs.append(pd.DataFrame({**columns, "moved": 1 - part.cosine}))
        return pd.concat(effects), pd.concat(pairs) if by_token else pd.DataFrame()

    def _cut(self, rows: np.ndarray) -> Sequences:
        return Edit("delete", self.n_genes, readmit=False).before(self.sequences[rows])


def prepare_encoder(model: Model):
    """The encoder as it is, for inference in float32."""
    return prepare(model.encoder, torch.device("cpu"), torch.float32)


def load(name: str) -> ad.AnnData:
    """A data set of SCMIX_DATA."""
    if "SCMIX_DATA" not in os.environ:
        raise SystemExit("Set SCMIX_DATA to the folder that holds data/*.h5ad.")
    return ad.read_h5ad(Path(os.environ["SCMIX_DATA"]) / "data" / f"{name}.h5ad")


def gene_table(cells: Cells, rows: np.ndarray) -> pd.DataFrame:
    """By token: symbol, log fold change and detection in both states; mean and correlation with
    a gene within start cells are made from `log`, the log counts per 10,000 of those cells.
    """
    adata, vocabulary = cells.adata, cells.model.vocabulary
    counts = np.asarray(adata.X.todense(), dtype=float)
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    means = [scaled[side].mean(axis=0) for side in (cells.goal, cells.start)]
    seen = [(counts[side] > 0).mean(axis=0) for side in (cells.goal, cells.start)]
    table = pd.DataFrame(
        {
            "symbol": adata.var_names,
            "log_change": np.log2((means[0] + 0.1) / (means[1] + 0.1)),
            "detection_goal": seen[0],
            "detection": seen[1],
            "mean": means[1],
        }
    )
    genes = vocabulary.genes
    species = "human" if cells.species[0] == 0 else "mouse"
    tokens = genes[genes["species"] == species].drop_duplicates("ensembl_id")
    ids = tokens.set_index("ensembl_id")["token"]
    table["token"] = adata.var["ensembl_id"].map(ids).to_numpy()
    table = table.dropna(subset=["token"]).drop_duplicates("token")
    return table.assign(token=table["token"].astype(int)).set_index("token")


def correlation(cells: Cells, symbol: str) -> pd.Series:
    """Of each gene's log counts with those of one gene, over start cells."""
    counts = np.asarray(cells.adata.X[cells.start].todense(), dtype=float)
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    own = log[:, list(cells.adata.var_names).index(symbol)]
    centred, target = log - log.mean(axis=0), own - own.mean()
    spread = np.sqrt((centred**2).sum(axis=0) * (target**2).sum())
    values = np.divide(target @ centred, spread, out=np.zeros(log.shape[1]), where=spread > 0)
    return pd.Series(values, index=cells.adata.var_names)


# --- the knock-out ---


def knockout(model: Model, out: Path, adata: ad.AnnData) -> None:
    """Rank of Trem2, and its predicted effects on other genes; saves its tables."""
    out.mkdir(parents=True, exist_ok=True)
    cells = Cells(adata, model, "WT", "Trem2_KO")
    trem2 = cells.token("Trem2")
    rows = cells.having(trem2, np.flatnonzero(cells.start), 100)
    saved(out / "screen.csv", lambda: cells.screened(rows[:60]))
    screen = pd.read_csv(out / "screen.csv")
    saved(out / "exact.csv", lambda: cells.exact(rows[:16], "delete", to_check(screen, trem2))[0])
    saved(out / "genes.csv", lambda: gene_table(cells, rows).reset_index())
    controls = like(screen, trem2, 4)
    saved(out / "pairs.csv", lambda: mean_moved(cells, rows[:60], [trem2, *controls]))
    table = correlation(cells, "Trem2").rename("correlation").rename_axis("symbol").reset_index()
    saved(out / "correlation.csv", lambda: table)


def fine_tuned(model: Model, adata: ad.AnnData, out: Path) -> Model:
    """The encoder after learning wild type and knock-out on some cells, Trem2 left out of them."""
    folder = out / "classifier"
    if not folder.exists():
        without = adata[:, adata.var_names != "Trem2"].copy()
        classifier = scmix.tl.fine_tune(
            without, "condition", recipe="tuned", model=model, n_genes=192
        )
        print(classifier, flush=True)
        classifier.save(folder)
    return models.load(folder)


def halves(adata: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """Two random halves of the cells."""
    order = np.random.default_rng(SEED).permutation(adata.n_obs)
    cut = adata.n_obs // 2
    return adata[np.sort(order[:cut])].copy(), adata[np.sort(order[cut:])].copy()


def to_check(screen: pd.DataFrame, token: int) -> np.ndarray:
    """A gene, the ten with the largest estimates, and fifteen at random."""
    means = mean_effects(screen)
    drawn = means.sample(15, random_state=SEED).index
    return np.unique([token, *means["effect"].nlargest(10).index, *drawn])


def like(screen: pd.DataFrame, token: int, size: int) -> list[int]:
    """Genes that are in about as many cells and ranked about as highly."""
    place = screen.groupby("cell").cumcount()
    means = screen.assign(place=place).groupby("token")["place"].agg(["mean", "size"])
    apart = np.abs(means / means.loc[token] - 1).sum(axis=1)
    return apart.drop(token).nsmallest(size).index.to_list()


def mean_moved(cells: Cells, rows: np.ndarray, tokens: list[int]) -> pd.DataFrame:
    """How far each other gene's vector moves on average: token, affected, moved, n_cells."""
    _, pairs = cells.exact(rows, "delete", np.array(tokens), by_token=True)
    grouped = pairs.groupby(["token", "affected"])["moved"]
    return grouped.agg(moved="mean", n_cells="size").reset_index()


# --- interferon ---


def interferon(model: Model, out: Path) -> None:
    """Overexpression in untreated monocytes of two donors; saves two tables."""
    adata = load("kang_muscat_ctrl_stim")
    cells = Cells(adata[adata.obs["cell_type"] == "CD14+ Monocytes"].copy(), model, "ctrl", "stim")
    genes = gene_table(cells, np.flatnonzero(cells.start))
    saved(out / "interferon_genes.csv", lambda: genes.reset_index())
    donors = cells.adata.obs["batch"].astype(str).to_numpy()
    rng = np.random.default_rng(SEED)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(cells.start & (donors == d)))[:8] for d in set(donors)]
    )
    response = genes[genes["symbol"].isin(INTERFERON)].index
    tokens = np.r_[response, matched(genes["detection"], response)]
    saved(out / "interferon.csv", lambda: cells.exact(rows, "overexpress", tokens)[0])


def matched(detection: pd.Series, genes: pd.Index, each: int = 2) -> np.ndarray:
    """For each gene the two others that are detected about as often, none taken twice."""
    left, chosen = detection.drop(genes), []
    for gene in genes:
        nearest = (left - detection[gene]).abs().nsmallest(each).index
        chosen += list(nearest)
        left = left.drop(nearest)
    return np.array(chosen)


def saved(path: Path, make: Callable[[], pd.DataFrame]) -> None:
    """Make a table unless it is there."""
    if not path.exists():
        print(f"making {path.name}", flush=True)
        table = make()
        table.to_csv(path.with_suffix(".part"), index=False)
        path.with_suffix(".part").rename(path)


def main(arguments: list[str] | None = None) -> None:
    """Run what is not saved yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scmix-mini", help="name or folder of a checkpoint")
    parser.add_argument("--out", type=Path, default=Path("drivers"), help="folder of results")
    parser.add_argument("--fine-tune", action="store_true", help="also with a fine-tuned encoder")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    model = models.load(options.model)
    (options.out / "model.txt").write_text(f"{model.name}, sha256 {model.sha256[:12]}")
    interferon(model, options.out)
    microglia = load("trem2_ko_microglia")
    knockout(model, options.out, microglia)
    if options.fine_tune:
        learned, held_out = halves(microglia)
        folder = options.out / "fine_tuned"
        folder.mkdir(exist_ok=True)
        knockout(fine_tuned(model, learned, folder), folder, held_out)


if __name__ == "__main__":
    main()
