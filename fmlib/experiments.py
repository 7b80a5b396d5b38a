"""Named recipes at work: computing what they lack, publishing what they found."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_weights

from fmlib import (
    __version__,
    claims,
    heat_recipes,
    image_recipes,
    jacobian_recipes,
    map_recipes,
    network_recipes,
    parallel,
    without_gpu_recipe,
)
from fmlib.config import FmlibError, fingerprint, require
from fmlib.lab import Lab
from fmlib.recipe import Recipe
from fmlib.results import PUBLISHED, Results
from fmlib.store import Artifact, Job, Store, write_bytes

#: How the folder of the recipes in claims.APART is called behind the profile.
BESIDE = "without-gpu"
PARTS = (network_recipes, image_recipes, heat_recipes, map_recipes, jacobian_recipes, without_gpu_recipe)
RECIPES = {recipe.name: recipe for part in PARTS for recipe in part.RECIPES}


def recipes(names: list[str]) -> list[Recipe]:
    """The recipes of these names; none or "all" is every one but those of claims.APART, which are named by themselves.

    Raises `FmlibError` for an unknown name, and for one of these beside others.
    """
    for name in names:
        require(name in RECIPES or name == "all", f"unknown recipe {name!r}: choose from {', '.join(RECIPES)} or all")
    apart = [name for name in names if name in claims.APART]
    require(len(apart) in (0, len(names)), f"{', '.join(apart)} cannot be had beside other recipes: name no others")
    whole = "all" in names or not names
    return [RECIPES[name] for name in RECIPES if name in names or (whole and name not in claims.APART)]


def home(chosen: list[Recipe], profile: str) -> str:
    """The name of the folder that these recipes are published to: the profile's, or that of recipes apart."""
    return f"{profile}-{BESIDE}" if chosen[0].name in claims.APART else profile


def published_apart() -> list[Results]:
    """What is published of the recipes in claims.APART, a folder a profile."""
    return [Results.open(path.parent) for path in sorted(PUBLISHED.glob(f"*-{BESIDE}/manifest.json"))]


def _company(chosen: list[Recipe], folder: Path) -> list[Recipe]:
    """The recipes that fill `folder` with these: all but those of claims.APART; of such, these and what it holds."""
    if chosen[0].name not in claims.APART:
        return recipes([])
    held = Results.open(folder).manifest["recipes"] if (folder / "manifest.json").exists() else {}
    return [RECIPES[name] for name in claims.APART if RECIPES[name] in chosen or name in held]


def run(chosen: list[Recipe], lab: Lab, store: Store, workers: int | None = None) -> None:
    """Compute whatever the recipes lack, by so many processes (None: as many as usual on the store's device).

    Several of them draw no progress bars. Raises what `parallel.compute` does.
    """
    if workers is None:
        workers = parallel.usual_workers(store.device)
    plan = partial(_jobs, [recipe.name for recipe in chosen], replace(lab, progress=lab.progress and workers == 1))
    parallel.compute(plan, store, workers)


def _jobs(names: list[str], lab: Lab) -> list[Job]:
    fresh = replace(lab)  # without the jobs that a lab keeps once they are made: they do not pickle
    return [job for name in names for job in RECIPES[name].jobs(fresh)]


def restore(lab: Lab, store: Store, results: Results) -> list[str]:
    """Put the published networks that `store` lacks into it, as if they had been trained here; returns their names.

    A network counts as published if its weights are, and its key (all that it depends on) is the same.
    """
    names = []
    for regime in lab.profile.regimes:
        job, file = lab.network(regime), f"network_{regime}.safetensors"
        if file not in results.manifest["files"] or job.key not in results.manifest["recipes"]["networks"]["jobs"]:
            continue
        if not store.has(job):
            history = results.table("training").query("regime == @regime and repetition == 0")
            columns = history.drop(columns=["regime", "repetition", "epoch"])
            arrays = {str(name): values.to_numpy() for name, values in columns.items()}
            store.put(job, Artifact(arrays, load_weights(results.content(file))))
            names.append(job.name)
    return names


def publish(chosen: list[Recipe], lab: Lab, store: Store, folder: Path) -> Results:
    """Write the files of the chosen recipes, all claims and the manifest to `folder`, at once.

    Recipes that were not chosen keep what `folder` holds of them. Raises `FmlibError` if an artifact of a chosen
    recipe has not been computed, or if another recipe is not in `folder` or was made from other jobs than today's.
    """
    absent = [job.name for recipe in chosen for job in recipe.tree(lab) if not store.has(job)]
    require(not absent, f"{len(absent)} artifacts are missing ({', '.join(absent[:3])} ...): run 'fmlib run' first")
    together = _company(chosen, folder)
    jobs = {recipe.name: [job.key for job in recipe.tree(lab)] for recipe in together}
    whole = len(chosen) == len(together)
    require(whole or (folder / "manifest.json").exists(), f"{folder} holds nothing yet: publish all recipes together")
    old = None if whole else Results.open(folder)
    files: dict[str, bytes] = {}
    made: dict[str, Any] = {}
    for recipe in together:
        if recipe in chosen:
            found = recipe.export(lab, store)
            made[recipe.name] = {"device": lab.device.type, "torch": torch.__version__, "fmlib": __version__}
            made[recipe.name] |= {"files": sorted(found), "jobs": jobs[recipe.name]}
        else:
            assert old is not None
            kept = old.manifest["recipes"].get(recipe.name, {"jobs": None})
            mend = f"publish {recipe.name} as well"
            require(kept["jobs"] == jobs[recipe.name], f"{folder} holds other results of {recipe.name}: {mend}")
            made[recipe.name], found = kept, {name: old.content(name) for name in kept["files"]}
        files |= found
    manifest: dict[str, Any] = {
        "profile": lab.profile.name,
        "seed": lab.seed,
        "key": fingerprint(jobs),
        "recipes": made,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    for name, content in files.items():
        write_bytes(draft / name, content)
    try:
        judge(Results(draft, manifest))
    except FmlibError:
        shutil.rmtree(draft)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return Results.open(folder)


def judge(results: Results) -> None:
    """Judge every claim from the files of `results`, and write `claims.json` and the manifest beside them."""
    ledger = (json.dumps(claims.ledger(results), indent=1) + "\n").encode()
    write_bytes(results.folder / "claims.json", ledger)
    results.manifest["files"]["claims.json"] = hashlib.sha256(ledger).hexdigest()
    write_bytes(results.folder / "manifest.json", (json.dumps(results.manifest, indent=1) + "\n").encode())
