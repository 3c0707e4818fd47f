"""What a closed shell saves: rows a network evaluates per grid point, and time per point.

The same closed-shell density of water is given to the integrator once as a total density and once
as two equal spin densities. r2SCAN has no network; there the time alone shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.build import molecule
from common import compare, interleave, one_thread, save


@dataclass(frozen=True)
class Protocol:
    molecule: str = "H2O"
    basis: str = "def2-svp"
    grid_level: int = 3
    repeats: int = 15
    width: int = 64
    depth: int = 3
    seed: int = 0


def main() -> None:
    one_thread()
    from pyscf import dft, gto

    from ase_neuralxc.backend.hook import TorchNumInt
    from ase_neuralxc.functional import load_functional
    from ase_neuralxc.functional.network import AnchoredNetwork
    from ase_neuralxc.functional.neural import NeuralSemilocal

    protocol = Protocol()
    atoms = molecule(protocol.molecule)
    mol = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis=protocol.basis, verbose=0
    )
    mf = dft.RKS(mol, xc="r2scan")
    mf.grids.level = protocol.grid_level
    mf.kernel()
    host = mf._numint
    blocks = [
        host.eval_rho2(mol, ao, mf.mo_coeff, mf.mo_occ, mask, "MGGA", with_lapl=False)
        for ao, mask, _, _ in host.block_loop(mol, mf.grids, mol.nao, deriv=1)
    ]
    total = np.concatenate(blocks, axis=1)
    spins = np.stack([0.5 * total, 0.5 * total])

    rows = {"count": 0}
    evaluate = AnchoredNetwork.evaluate

    def counted(self: AnchoredNetwork, inputs: object, with_gradient: bool) -> object:
        rows["count"] += inputs.shape[0]  # type: ignore[attr-defined]
        return evaluate(self, inputs, with_gradient)  # type: ignore[arg-type]

    results = {"grid_points": total.shape[1]}
    network = NeuralSemilocal(width=protocol.width, depth=protocol.depth, seed=protocol.seed)
    for name, functional in (
        ("neural", network),
        ("torch r2scan", load_functional("r2scan")),
        ("torch pbe", load_functional("pbe")),
    ):
        integrator = TorchNumInt(functional)
        kind = integrator.xctype
        nvar = {"GGA": 4, "MGGA": 5}[kind]

        def closed(integrator=integrator, nvar=nvar, kind=kind):
            integrator.eval_xc_eff("", total[:nvar], xctype=kind)
            return {}

        def resolved(integrator=integrator, nvar=nvar, kind=kind):
            integrator.eval_xc_eff("", spins[:, :nvar], xctype=kind)
            return {}

        timings = interleave({"closed shell": closed, "spin resolved": resolved}, protocol.repeats)
        results[name] = compare(timings, "closed shell")
        AnchoredNetwork.evaluate = counted
        for label, run in (("closed shell", closed), ("spin resolved", resolved)):
            rows["count"] = 0
            run()
            results[name][label]["network_rows_per_point"] = round(
                rows["count"] / total.shape[1], 3
            )
            results[name][label]["microseconds_per_point"] = round(
                timings[label].median * 1e6 / total.shape[1], 3
            )
        AnchoredNetwork.evaluate = evaluate
    save("closed_shell", protocol, results)


if __name__ == "__main__":
    main()
