"""What `umap_compare` draws, as data: layouts, a tidy table of cells, and numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import metrics
from .._errors import InputError, MissingKeyError

logger = logging.getLogger("scmix")
_FEWEST_CELLS = 3  # a neighbourhood graph of fewer cells has no layout


@dataclass(frozen=True, eq=False)
class Panel:
    """One column of the figure: an embedding, its layout in the plane, and the cells' annotation.

    `embedding` (n_cells, n_dimensions) and `layout` (n_cells, 2) hold NaN rows for cells
    without a vector; `obs` has a row for every cell.
    """

    title: str
    key: str
    embedding: np.ndarray
    layout: np.ndarray
    obs: pd.DataFrame


def make_panels(
    objects: Mapping[str, AnnData],
    keys: Sequence[str],
    colors: Sequence[str],
    titles: Sequence[str] | None,
    **umap_options: object,
) -> list[Panel]:
    """A panel for each object and key. Everything is looked up before the first layout is made."""
    chosen = [(name, data, key) for name, data in objects.items() for key in keys]
    for _, data, key in chosen:
        _require(key, data.obsm, "obsm")
        for color in colors:
            _require(color, data.obs, "obs")
    labels = list(titles) if titles is not None else [_title(n, k, keys) for n, _, k in chosen]
    if len(labels) != len(chosen):
        raise InputError(f"Found {len(labels)} titles for {len(chosen)} panels; expected as many.")
    embeddings = [_checked(data.obsm[key], key) for _, data, key in chosen]
    return [
        Panel(label, key, values, _layout(data, key, values, umap_options), data.obs[list(colors)])
        for label, values, (_, data, key) in zip(labels, embeddings, chosen, strict=True)
    ]


def aligned(panels: Sequence[Panel]) -> list[np.ndarray]:
    """Layouts laid on the first one; the panels must show the same cells in the same order."""
    first = panels[0]
    for panel in panels[1:]:
        if not panel.obs.index.equals(first.obs.index):
            raise InputError(
                f"Found other cells in panel {panel.title!r} than in {first.title!r}; aligning "
                "and centroid shifts need the same obs_names in the same order."
            )
    return [first.layout, *(metrics.procrustes(first.layout, p.layout) for p in panels[1:])]


def panel_table(panels: Sequence[Panel], layouts: Sequence[np.ndarray]) -> pd.DataFrame:
    """Tidy table with one row per panel and cell that has a vector.

    Columns: `panel` (number), `title`, `cell` (obs name), `umap1`, `umap2`, and for each colour
    `color:<name>`.
    """
    annotations = _stackable([panel.obs for panel in panels])
    frames = []
    for number, (panel, layout, obs) in enumerate(zip(panels, layouts, annotations, strict=True)):
        kept = metrics.has_vector(layout)
        if not kept.all():
            logger.info(
                "umap_compare: left out %d of %d cells without a vector in %r.",
                (~kept).sum(),
                len(kept),
                panel.key,
            )
        front = {
            "panel": number,
            "title": panel.title,
            "cell": obs.index.astype(str),
            "umap1": layout[:, 0],
            "umap2": layout[:, 1],
        }
        frame = pd.concat([pd.DataFrame(front, index=obs.index), obs], axis=1)
        frames.append(frame[kept])
    return pd.concat(frames, ignore_index=True)


def panel_numbers(panels: Sequence[Panel], color: str, metric: str) -> pd.DataFrame:
    """Scores of a categorical colour in each panel.

    Columns: `silhouette` and `purity` of the embedding itself (not of its picture), and
    `centroid_shift`: the mean distance, in units of the first layout, between a category's
    centroid there and in the layout laid on it (0 in the first panel, NaN where the panels do
    not show the same cells).
    """
    rows = []
    first = panels[0]
    for panel in panels:
        kept = metrics.has_vector(panel.embedding) & panel.obs[color].notna().to_numpy()
        points, labels = panel.embedding[kept], panel.obs[color][kept].astype(str)
        shift = np.nan
        if panel.obs.index.equals(first.obs.index):
            named = np.where(kept[:, None], metrics.procrustes(first.layout, panel.layout), np.nan)
            shift = metrics.centroid_distance(first.layout, named, panel.obs[color].astype(str))
        rows.append(
            {
                "silhouette": metrics.silhouette(points, labels, metric=metric),
                "purity": metrics.knn_purity(points, labels, metric=metric),
                "centroid_shift": 0.0 if panel is first else shift,
            }
        )
    return pd.DataFrame(rows, index=[panel.title for panel in panels])


def is_continuous(columns: Sequence[pd.Series]) -> bool:
    """Whether all columns hold numbers that are not labels."""
    return all(
        pd.api.types.is_numeric_dtype(c.dtype) and not pd.api.types.is_bool_dtype(c.dtype)
        for c in columns
    )


def _stackable(annotations: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Columns renamed `color:<name>`, of one type in all tables: floats, or one set of categories.

    Categories keep their own order, those of later tables come behind.
    """
    stackable = [pd.DataFrame(index=obs.index) for obs in annotations]
    for color in annotations[0].columns:
        columns = [obs[color] for obs in annotations]
        if is_continuous(columns):
            typed = [c.to_numpy(dtype=np.float64, na_value=np.nan) for c in columns]
        else:
            dtype = pd.CategoricalDtype(_categories(columns))
            typed = [c.map(str, na_action="ignore").astype(dtype).array for c in columns]
        for frame, values in zip(stackable, typed, strict=True):
            frame[f"color:{color}"] = values
    return stackable


def _categories(columns: Sequence[pd.Series]) -> list[str]:
    seen: dict[str, None] = {}
    for column in columns:
        values = column.astype("category").cat.remove_unused_categories()
        seen.update(dict.fromkeys(map(str, values.cat.categories)))
    return list(seen)


def _title(name: str, key: str, keys: Sequence[str]) -> str:
    if not name:
        return key
    return name if len(keys) == 1 else f"{name}: {key}"


def _require(key: str, slot: Mapping, where: str) -> None:
    if key in slot:
        return
    known = [str(k) for k in slot]
    close = get_close_matches(key, known, n=3) or known[:8]
    hint = f"there is {', '.join(map(repr, close))}" if close else "it is empty"
    raise MissingKeyError(f"Found no {key!r} in adata.{where}; {hint}.")


def _checked(values: object, key: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    n_cells = int(metrics.has_vector(array).sum())
    if array.shape[1] < 2 or n_cells < _FEWEST_CELLS:
        raise InputError(
            f"Found {n_cells} cells with a vector of {array.shape[1]} dimensions in "
            f"adata.obsm[{key!r}]; expected at least {_FEWEST_CELLS} cells and 2 dimensions."
        )
    return array


def _layout(data: AnnData, key: str, values: np.ndarray, umap_options: Mapping) -> np.ndarray:
    if values.shape[1] == 2:
        return values
    made = f"{key}_umap"
    if made in data.obsm:
        layout = np.asarray(data.obsm[made], dtype=np.float64)
        if layout.shape[1] == 2:
            return layout
    kept = metrics.has_vector(values)
    layout = np.full((len(values), 2), np.nan)
    layout[kept] = _umap(values[kept], **umap_options)
    return layout


def _umap(values: np.ndarray, *, n_neighbors: int, min_dist: float, metric: str, seed: int):
    from umap import UMAP

    few = len(values) < 12  # the spectral start needs more cells than eigenvectors
    model = UMAP(
        n_neighbors=min(n_neighbors, len(values) - 1),
        min_dist=min_dist,
        metric=metric,
        init="random" if few else "spectral",
        random_state=seed,
        n_jobs=1,  # a seeded UMAP is serial; saying so keeps it quiet
    )
    return model.fit_transform(values)
