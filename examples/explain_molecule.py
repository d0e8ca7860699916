"""Why does an atom have this charge? Walks over the bonds of a molecule, groups of atoms, logic.

    pip install -e '.[pretrained]'
    python examples/explain_molecule.py                             # paracetamol, its amide oxygen
    python examples/explain_molecule.py --smiles 'CC(=O)O' --atom 3

The network is expaloma's port of espaloma-charge: four rounds of messages between bonded atoms give
each atom an electronegativity e and a hardness s, and the charges are those that balance them,

    q_i = -e_i / s_i + (Q + sum_j e_j / s_j) / (s_i sum_j 1 / s_j).

Hardnesses are held constant, so the charge of an atom is a sum over all electronegativities, and
LRP follows these back through the rounds. A walk names the atom where relevance is before the first
round, and after each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lrp_jax as lrp
from lrp_jax import plot
from lrp_jax.questions import Query, visits

LAYERS = ("Activation", "ReLU", "ReLU:1", "ReLU:2", "ReLU:3")
GROUPS = {"amide": "[CX3](=O)[NX3]", "carboxyl": "[CX3](=O)[OX2H1,OX1-]", "ring": "[r]",
          "hydroxyl": "[OX2H1][#6;!$(C=O)]", "amine": "[NX3;H2,H1;!$(NC=O)]"}  # fmt: skip


def charges(
    model: Any, x: jax.Array, senders: jax.Array, receivers: jax.Array, formal: jax.Array
) -> jax.Array:
    """The charges of a molecule's atoms from their features, bonds and formal charges."""
    from expaloma.nn.qeq import charge_equilibrium

    hidden = model.gnn(x, senders, receivers, zero_edges=False)
    found = hidden @ model.w_readout.T + model.b_readout
    hardness, one_molecule = jax.lax.stop_gradient(found[:, 1:]), jnp.zeros(len(x), int)
    return charge_equilibrium(found[:, :1], hardness, one_molecule, 1, 0.0, q_ref=formal)[:, 0]


def groups_of(molecule: Any) -> dict[str, list[int]]:
    """The functional groups of a molecule, each a list of atoms."""
    from rdkit import Chem

    found = {}
    for name, pattern in GROUPS.items():
        matches = molecule.GetSubstructMatches(Chem.MolFromSmarts(pattern))
        if matches:
            found[name] = sorted({atom for match in matches for atom in match})
    return found


def queries_of(groups: dict[str, list[int]]) -> dict[str, Query]:
    """What is asked about the first two groups that share no atom."""
    names = list(groups)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if not set(groups[a]) & set(groups[b]):
                one, other = visits(*groups[a]), visits(*groups[b])
                return {
                    f"{a} and {b}": one & other,
                    f"{a}, not {b}": one & ~other,
                    f"{b}, not {a}": other & ~one,
                    "neither": ~one & ~other,
                }
    return {}


def draw(
    out: Path, molecule: Any, symbols: list[str], relevance: np.ndarray, walks: lrp.questions.Walks
) -> None:
    """Write the molecule with the relevance of its atoms, and with its strongest walks."""
    import matplotlib.pyplot as plt
    from rdkit.Chem import rdDepictor

    rdDepictor.Compute2DCoords(molecule)
    places = molecule.GetConformer().GetPositions()[:, :2]
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    graph: dict[str, Any] = {"labels": symbols, "positions": places, "edges": bonds}
    plot.walks(walks.nodes[:0], walks.relevance[:0], left, of_nodes=relevance, **graph)
    left.set_title("relevance of atoms")
    plot.walks(walks.nodes, walks.relevance, right, **graph)
    right.set_title(f"the {len(walks.relevance)} strongest walks")
    figure.savefig(out / "molecule.png", dpi=200)
    plt.close(figure)


def listed(heading: str, names: Any, values: Any) -> None:
    """Print a number for each name."""
    print(f"\n{heading}:")
    for name, value in zip(names, values, strict=True):
        print(f"  {name:24s} {value:+.4f}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smiles", default="CC(=O)Nc1ccc(O)cc1")
    parser.add_argument("--atom", type=int, default=2, help="whose charge, counted from 0")
    parser.add_argument("--gamma", type=float, default=0.25, help="of the rule of all layers")
    parser.add_argument("-k", type=int, default=12, help="how many walks")
    parser.add_argument("--out", type=Path, default=Path("explained_molecule"), help="a folder")
    options = parser.parse_args(arguments)

    from expaloma import bundled_eqx_path, load_eqx
    from expaloma.featurize import from_rdkit_mol
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")  # expaloma's featurizer calls what rdkit has renamed
    molecule = Chem.MolFromSmiles(options.smiles)
    if molecule is None or molecule.GetNumBonds() == 0:
        parser.error(f"--smiles {options.smiles}: not a molecule with bonds")
    if not 0 <= options.atom < molecule.GetNumAtoms():
        parser.error(f"--atom {options.atom}: there are {molecule.GetNumAtoms()} atoms")
    model, features = load_eqx(bundled_eqx_path()), from_rdkit_mol(molecule)
    symbols = [f"{a.GetSymbol()}{a.GetIdx()}" for a in molecule.GetAtoms()]
    molecule_graph = (features.h0, features.senders, features.receivers, features.q_ref)
    given = (model, *map(jnp.asarray, molecule_graph))
    composite = lrp.Composite([(lrp.Dense, lrp.Gamma(options.gamma)), ("*", lrp.Epsilon())])
    question: dict[str, Any] = {
        "target": jnp.eye(len(symbols))[options.atom]
    }  # the weight of each charge

    q = np.asarray(charges(*given))
    print("charges:", ", ".join(f"{s} {v:+.3f}" for s, v in zip(symbols, q, strict=True)))
    atoms = np.asarray(
        lrp.layer_relevances(charges, composite, LAYERS[0])(*given, **question)[LAYERS[0]]
    ).sum(-1)
    print(f"\nwhere the charge of {symbols[options.atom]}, {q[options.atom]:+.3f}, comes from:")
    for i in np.argsort(-np.abs(atoms))[:5]:
        print(f"  {symbols[i]:4s} {atoms[i]:+.4f}")

    find = lrp.strongest_walks(charges, composite, LAYERS, options.k, width=512)
    walks = find(*given, **question)
    sure = "for certain" if walks.proved else f"others have at most {walks.missed:.4f}"
    print(f"\nstrongest walks ({sure}):")
    for nodes, value in zip(np.asarray(walks.nodes), walks.relevance, strict=True):
        print(f"  {value:+.4f}  {' -> '.join(symbols[n] for n in nodes)}")

    groups = groups_of(molecule)
    if groups:
        ask = lrp.group_relevance(charges, composite, LAYERS, list(groups.values()))
        listed("all that stays inside of a group", groups, ask(*given, **question))
    queries = queries_of(groups)
    if queries:
        found = lrp.query_relevance(charges, composite, LAYERS, list(queries.values()))
        listed("walks that visit", queries, found(*given, **question))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out, molecule, symbols, atoms, walks)
    print(f"\nwritten: molecule.png in {options.out}")


if __name__ == "__main__":
    main()
